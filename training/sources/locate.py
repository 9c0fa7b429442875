"""Locations in a recipe: `package:NAME/path` in an installed package, a local path, or a name on a hub."""

import functools
import glob
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bentune.bundle.errors import InputError
from training.recipe.section import PACKAGE

SHOWN_CHARACTERS = 200
KNOWN_SUFFIXES = frozenset({"csv", "tsv", "jsonl", "ndjson", "json", "txt", "parquet"})
HUB_TIMEOUT_S = 5.0
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True, slots=True)
class Location:
    """A `path` on this machine, or else a hub's `name`."""

    name: str
    path: Path | None


def locate(given: str, key: str) -> Location:
    """Resolve the value of the recipe's `key`.

    Raises InputError when the package is not installed, or the value is neither an existing path nor a hub name.
    """
    if given.startswith(PACKAGE):
        return Location(given, _in_package(given, key))
    try:
        path = Path(given).expanduser()
        there = path.exists()
    except (OSError, RuntimeError) as error:  # too long, no permission, ~name of nobody
        raise InputError(f"{key}: {given[:SHOWN_CHARACTERS]}: {getattr(error, 'strerror', None) or error}") from None
    if there:
        return Location(given, path.resolve())
    if HUB_NAME.fullmatch(given) and path.suffix.lower().lstrip(".") not in KNOWN_SUFFIXES:
        return Location(given, None)
    raise InputError(f"{key}: {given} is not there (looked in {Path.cwd()}), and it is no hub name")


def locate_all(given: str, key: str) -> list[Location]:
    """Resolve a glob such as `more/*.jsonl` to its paths, any other value as `locate`.

    The paths are sorted; hidden ones are left out. Raises InputError when nothing matches, or as `locate` does.
    """
    if not any(character in given for character in "*?[") or _is_there(given):
        return [locate(given, key)]
    if given.startswith(PACKAGE):
        raise InputError(f"{key}: {given}: a path inside a package is named in full; name the files one by one")
    found = sorted(glob.glob(str(Path(given).expanduser()), recursive=True))  # noqa: PTH207 (a Path globs relative to a folder only)
    paths = [Path(name).resolve() for name in found if not Path(name).name.startswith((".", "_"))]
    if not paths:
        raise InputError(f"{key}: no path matches {given[:SHOWN_CHARACTERS]} (looked in {Path.cwd()})")
    return [Location(given, path) for path in paths]


def _is_there(given: str) -> bool:
    try:
        return Path(given).expanduser().exists()
    except (OSError, RuntimeError):
        return False


def _in_package(given: str, key: str) -> Path:
    package, _, inner = given.removeprefix(PACKAGE).partition("/")
    if not package.isidentifier():
        raise InputError(f"{key}: {given}: write package:NAME/path, with the name as it is imported")
    try:
        spec = find_spec(package)
    except ValueError:  # __main__
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"{key}: {given}: the package {package} is not installed; try `pip install {package.replace('_', '-')}`"
        )
    root = Path(next(iter(spec.submodule_search_locations))).resolve()
    path = (root / inner).resolve()
    if not path.is_relative_to(root):
        raise InputError(f"{key}: {given} leads outside the package")
    if not path.exists():
        raise InputError(f"{key}: {given}: the package {package} has no {inner}")
    return path


@functools.cache
def offline() -> bool:
    """Return True when only the hub's cache can be used.

    That is so when HF_HUB_OFFLINE is set or the hub does not respond to one short request: without a network its
    libraries would retry for minutes. Then HF_HUB_OFFLINE is set for this process, because the libraries do not pass
    `local_files_only` on to every request.
    """
    from huggingface_hub import configure_http_backend, constants, get_session

    if not constants.HF_HUB_OFFLINE:
        try:
            get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT_S)
        except OSError:  # every error of requests is one
            constants.HF_HUB_OFFLINE = True
            configure_http_backend()  # drops the open session, which ignores the flag
    return constants.HF_HUB_OFFLINE


def why_not() -> str:
    """Return the reason why the hub did not return a model or data set, for a message."""
    from huggingface_hub import constants

    place = f"there is no such path here, and the hub ({constants.ENDPOINT})"
    if offline():
        return f"{place} cannot be reached. Check the network, or give a local path or package:NAME/path"
    return f"{place} did not give it. Check the name, or give a local path or package:NAME/path"
