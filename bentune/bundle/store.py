"""BentoML stores: names of versions, and access to bundles and Bentos.

Only this file uses BentoML's internal modules, so that a release which moves them changes this file only.
"""

import errno
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bentoml
from bentoml._internal.configuration.containers import BentoMLContainer

from bentune.bundle.errors import InputError
from bentune.bundle.lock import locked
from bentune.bundle.manifest import MANIFEST, MODULE, Bundle, open_bundle
from bentune.bundle.record_verdict import mend

STAMP = "%Y%m%d-%H%M%S"
VERSION = re.compile(r"([0-9]{8}-[0-9]{6})-[0-9a-f]{6}")
SHOWN = 8
NAME = r"[a-z0-9][a-z0-9._-]*"


def stored_at(version: str) -> datetime | None:
    """Return the time in a version's name, or None for a name of another kind."""
    match = VERSION.fullmatch(version)
    try:
        return datetime.strptime(match[1], STAMP).replace(tzinfo=UTC) if match else None
    except ValueError:  # 20261399-...
        return None


def next_version(existing: Iterable[str], now: datetime, sha256: str) -> tuple[str, datetime]:
    """Return a version greater than all of `existing`, and its time in seconds.

    The time is now, or one second after the last version. A later version is therefore greater, also within one second
    and after the clock was set back.
    """
    last = max((at for version in existing if (at := stored_at(version)) is not None), default=None)
    at = now.astimezone(UTC).replace(microsecond=0)
    if last is not None:
        at = max(at, last + timedelta(seconds=1))
    return f"{at:{STAMP}}-{sha256[:6]}", at


def newest(versions: Iterable[str]) -> str | None:
    """Return the greatest of the versions that Bentune named; None when there is none."""
    return max((version for version in versions if stored_at(version) is not None), default=None)


@contextmanager
def reserved(name: str, sha256: str) -> Iterator[tuple[str, datetime]]:
    """Reserve the next version of `name` for this process until the block ends.

    The version is yielded with its time; store the bundle within the block. The lock is the kernel's, so it does not
    outlive a crashed process. It is in the stores' home, so it covers all processes that share them.
    """
    with locked(_place() / f"{name}.lock"):
        yield next_version(_stored(name), datetime.now(UTC), sha256)


def require_store() -> None:
    """Raise InputError when the stores cannot be written, to fail before training."""
    try:
        for directory in (_place(), model_store(), bento_store()):
            with tempfile.TemporaryFile(dir=directory):
                pass
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"BENTOML_HOME: BentoML's stores cannot be written ({error}): set it to another directory"
        ) from error


def home() -> Path:
    """Return BENTOML_HOME, the directory of both stores."""
    return Path(BentoMLContainer.bentoml_home.get())


def model_store() -> Path:
    """Return the directory of the model store, with models at NAME/VERSION."""
    return Path(BentoMLContainer.model_store_dir.get())


def bento_store() -> Path:
    """Return the directory of the Bento store, with Bentos at NAME/VERSION."""
    return Path(BentoMLContainer.bento_store_dir.get())


def remember_model(tag: str) -> None:
    """Write `tag` into the arguments of the Bento that is being built.

    BentoML stores them in the Bento and restores them when it is loaded.
    """
    BentoMLContainer.bento_arguments.get()["model"] = tag


def _place() -> Path:
    place = home() / "bentune"
    place.mkdir(parents=True, exist_ok=True)
    return place


def _stored(name: str) -> set[str]:
    """Return the names of the version directories, half-written ones included."""
    folders = [store / name for store in (model_store(), bento_store())]
    return {path.name for folder in folders if folder.is_dir() for path in folder.iterdir()}


def find_bundle(tag: str) -> Bundle:
    """Open NAME (its newest version), NAME:VERSION, or a bundle's directory.

    Raises InputError or BundleError.
    """
    if (Path(tag) / MANIFEST).is_file():
        return _opened(Path(tag))
    return _opened(Path(_model(tag).path))


def bundle_tag(name: str | None = None) -> str:
    """Return NAME:VERSION of the bundle that `find_bundle` finds for NAME.

    Without NAME, it is the newest bundle of all. Raises InputError when there is none.
    """
    if name is not None:
        return str(_model(name).tag)
    bundles = _bundles()
    if not bundles:
        raise InputError("the BentoML model store has no bundle: `bentune run RECIPE` makes one")
    version = newest(str(model.tag.version) for model in bundles)
    if version is None:  # Other names have no order but BentoML's.
        return str(max(bundles, key=lambda model: (model.creation_time, str(model.tag))).tag)
    return max(str(model.tag) for model in bundles if model.tag.version == version)


def _model(tag: str) -> bentoml.Model:
    try:
        return bentoml.models.get(_newest(tag, model_store()))
    except (bentoml.exceptions.BentoMLException, ValueError) as error:
        known = [str(model.tag) for model in _bundles()]
        raise InputError(f"{tag} is not in the BentoML model store; {_listed(tag, known, 'makes')}") from error


def _bundles() -> list[bentoml.Model]:
    return [model for model in bentoml.models.list() if model.info.module == MODULE]


def find_bento(tag: str) -> bentoml.Bento:
    """Find the Bento NAME (its newest version) or NAME:VERSION. Raises InputError."""
    try:
        return bentoml.bentos.get(_newest(tag, bento_store()))
    except (bentoml.exceptions.BentoMLException, ValueError) as error:
        known = [str(bento.tag) for bento in bentoml.bentos.list()]
        raise InputError(f"{tag} is not in the BentoML store; {_listed(tag, known, 'builds')}") from error


def _newest(tag: str, store: Path) -> str:
    """Return NAME:VERSION for NAME, by the order of versions.

    BentoML orders by creation time, and the clock may be set back.
    """
    name, _, version = tag.partition(":")
    folder = store / name
    if version not in {"", "latest"} or not re.fullmatch(NAME, name) or not folder.is_dir():
        return tag
    found = newest(path.name for path in folder.iterdir() if path.is_dir())
    return tag if found is None else f"{name}:{found}"


def _opened(root: Path) -> Bundle:
    mend(root)
    return open_bundle(root)


def _listed(tag: str, known: list[str], verb: str) -> str:
    """Describe the store's other versions of the same name, or else its names."""
    if not known:
        return f"it is empty: `bentune run RECIPE` {verb} one"
    name = tag.partition(":")[0]
    versions = sorted((other for other in known if other.partition(":")[0] == name), reverse=True)
    others = versions or sorted({other.partition(":")[0] for other in known})
    more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
    return f"it has {', '.join(others[:SHOWN])}{more}"
