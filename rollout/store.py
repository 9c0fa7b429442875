"""Finds bundles and Bentos: by tag in the BentoML stores, or by directory."""

import re
from pathlib import Path

import bentoml
from bentoml._internal.configuration.containers import BentoMLContainer

from rollout.verdicts import mend
from service.contract import MANIFEST, MODULE, Bundle, open_bundle
from service.errors import InputError
from service.version import newest

SHOWN = 8
NAME = r"[a-z0-9][a-z0-9._-]*"


def find_bundle(tag: str) -> Bundle:
    """Open NAME (its newest version), NAME:VERSION, or a bundle's directory. Raises InputError, BundleError."""
    if (Path(tag) / MANIFEST).is_file():
        return _opened(Path(tag))
    try:
        model = bentoml.models.get(_newest(tag, BentoMLContainer.model_store_dir.get()))
    except (bentoml.exceptions.BentoMLException, ValueError) as error:
        known = [str(model.tag) for model in bentoml.models.list() if model.info.module == MODULE]
        raise InputError(f"{tag} is not in the BentoML model store; {_listed(tag, known, 'makes')}") from error
    return _opened(Path(model.path))


def find_bento(tag: str) -> bentoml.Bento:
    """The Bento NAME (its newest version) or NAME:VERSION. Raises InputError."""
    try:
        return bentoml.bentos.get(_newest(tag, BentoMLContainer.bento_store_dir.get()))
    except (bentoml.exceptions.BentoMLException, ValueError) as error:
        known = [str(bento.tag) for bento in bentoml.bentos.list()]
        raise InputError(f"{tag} is not in the BentoML store; {_listed(tag, known, 'builds')}") from error


def _newest(tag: str, store: str) -> str:
    """NAME as NAME:VERSION, by the order of versions: BentoML goes by the clock, which may have been set back."""
    name, _, version = tag.partition(":")
    folder = Path(store) / name
    if version not in {"", "latest"} or not re.fullmatch(NAME, name) or not folder.is_dir():
        return tag
    found = newest(path.name for path in folder.iterdir() if path.is_dir())
    return tag if found is None else f"{name}:{found}"


def _opened(root: Path) -> Bundle:
    mend(root)
    return open_bundle(root)


def _listed(tag: str, known: list[str], verb: str) -> str:
    """What the store has instead: other versions of the same name, or else the names."""
    if not known:
        return f"it is empty: `bentune run RECIPE` {verb} one"
    name = tag.partition(":")[0]
    versions = sorted((other for other in known if other.partition(":")[0] == name), reverse=True)
    others = versions or sorted({other.partition(":")[0] for other in known})
    more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
    return f"it has {', '.join(others[:SHOWN])}{more}"
