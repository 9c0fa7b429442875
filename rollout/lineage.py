"""Lineage of a name: versions with their parents, inputs, verdicts and places."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import bentoml
from pydantic import Field

from bentune.bundle.errors import BundleError, InputError
from bentune.bundle.files import Frozen
from bentune.bundle.manifest import MODULE, Bundle, Parent, open_bundle
from bentune.bundle.store import stored_at
from bentune.bundle.verdict import Verdict
from rollout.release.record import read, served
from rollout.server.live import read_identity


class LineageChange(Frozen):
    """Change of a recipe's value from the parent's."""

    key: str
    before: Any
    now: Any


class Version(Frozen):
    """Version of a name.

    `content` is None if the bundle is `missing` from the store, or `damaged`, with the damage in words. `rows` counts
    rows by part of the split. `more` is the difference from the parent's rows and `changed` the difference of the
    recipes, both None without a parent in the store. `accuracy` is on the version's own test rows. `served` lists where
    it is served now, and `verdicts` the comparisons, newest last.
    """

    tag: str
    content: str | None = None
    missing: bool = False
    damaged: str | None = None
    created_at: datetime | None = None
    parent: Parent | None = None
    data_fingerprint: str | None = None
    rows: dict[str, int] = Field(default_factory=dict)
    more: int | None = None
    recipe_digest: str | None = None
    changed: list[LineageChange] | None = None
    base: str | None = None
    accuracy: float | None = None
    verdicts: list[Verdict] = Field(default_factory=list)
    served: list[str] = Field(default_factory=list)

    @property
    def verdict(self) -> Verdict | None:
        """Return the newest verdict, which counts."""
        return self.verdicts[-1] if self.verdicts else None


class Lineage(Frozen):
    """Versions in their order, missing ones first, and the problems found."""

    versions: list[Version]
    problems: list[str]


def lineage(name: str, addresses: Sequence[str] = (), progress: Callable[[int], None] = lambda _: None) -> Lineage:
    """Read the versions of `name` in BentoML's model store, and where each is served.

    Places come from the record of releases in the BentoML home and from the /info of each address. Raises InputError
    when the store has no version of the name.
    """
    places, problems = _served_by_record()
    for address in addresses:
        try:
            identity = read_identity(address)
            places.setdefault((identity.tag, identity.content), []).append(address)
        except InputError as error:
            problems.append(str(error))
    bundles: dict[str, Bundle] = {}
    versions: dict[str, Version] = {}
    for tag, root in _stored(name):
        try:
            bundle = open_bundle(root)
            versions[tag] = _version(bundle, places)
            bundles[tag] = bundle
        except BundleError as error:
            versions[tag] = Version(tag=tag, damaged=str(error))
        progress(1)
    for tag, bundle in bundles.items():
        parent = bundle.manifest.parent
        if parent is None or tag not in versions:
            continue
        known = bundles.get(parent.tag)
        if known is not None and known.content == parent.content:
            versions[tag] = versions[tag].model_copy(update=_compared(bundle, known))
        elif parent.tag not in versions:
            versions[parent.tag] = _elsewhere(parent)
        elif known is not None:
            problems.append(f"{tag} continues another {parent.tag} than the one in the store")
    unknown = [
        f"{tag} is served at {', '.join(at)}, but is not in the store here"
        for (tag, content), at in places.items()
        if tag.partition(":")[0] == name and getattr(versions.get(tag), "content", None) != content
    ]
    return Lineage(versions=sorted(versions.values(), key=_order), problems=[*problems, *unknown])


def _stored(name: str) -> list[tuple[str, Path]]:
    try:
        models = [model for model in bentoml.models.list(name) if model.info.module == MODULE]
    except (bentoml.exceptions.BentoMLException, ValueError):
        models = []
    if not models:
        known = sorted({model.tag.name for model in bentoml.models.list() if model.info.module == MODULE})
        has = f"it has {', '.join(known)}" if known else "it is empty: `bentune run RECIPE` makes one"
        raise InputError(f"{name} is not in the BentoML model store; {has}")
    return [(str(model.tag), Path(model.path)) for model in models]


def _order(version: Version) -> tuple[bool, bool, str]:
    return (not version.missing, stored_at(version.tag.partition(":")[2]) is not None, version.tag)


def _version(bundle: Bundle, places: dict[tuple[str, str], list[str]]) -> Version:
    manifest, evidence = bundle.manifest, bundle.evidence()
    return Version(
        tag=bundle.tag,
        content=bundle.content,
        created_at=manifest.created_at,
        parent=manifest.parent,
        data_fingerprint=manifest.data_fingerprint,
        rows=_rows(evidence),
        recipe_digest=manifest.recipe_digest,
        base=manifest.base_model.source,
        accuracy=_accuracy(evidence),
        verdicts=bundle.verdicts(),
        served=places.get((bundle.tag, bundle.content), []),
    )


def _elsewhere(parent: Parent) -> Version:
    """Build the version of a parent of another name or of a deleted one."""
    with suppress(bentoml.exceptions.BentoMLException, ValueError, BundleError):
        bundle = open_bundle(Path(bentoml.models.get(parent.tag).path))
        if bundle.content == parent.content:
            return _version(bundle, {})
    return Version(tag=parent.tag, missing=True)


def _compared(bundle: Bundle, parent: Bundle) -> dict[str, Any]:
    return {
        "more": sum(_rows(bundle.evidence()).values()) - sum(_rows(parent.evidence()).values()),
        "changed": _changes(_recipe(parent), _recipe(bundle)),
    }


def _rows(evidence: dict[str, Any]) -> dict[str, int]:
    with suppress(KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return {str(part): int(count) for part, count in evidence["data"]["rows"].items()}
    return {}


def _accuracy(evidence: dict[str, Any]) -> float | None:
    with suppress(KeyError, TypeError, ValueError, OverflowError):
        return float(evidence["evaluation"]["tuned"]["accuracy"]["value"])
    return None


def _recipe(bundle: Bundle) -> dict[str, Any]:
    """Return the recipe without the values that differ in every version."""
    with suppress(RecursionError):
        return _flat({key: value for key, value in bundle.recipe().items() if key != "parent"})
    return {}


def _flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in section.items():
        # Renamed labels may have dots in their names, so that they are not flattened.
        if isinstance(value, dict) and value and key != "labels":
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[LineageChange]:
    return [
        LineageChange(key=key, before=before.get(key), now=now.get(key))
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]


def _served_by_record() -> tuple[dict[tuple[str, str], list[str]], list[str]]:
    """Read the places of each served (tag, content) from the record.

    At each place the last release or rollback decides.
    """
    problems: list[str] = []
    lines = read(tell=problems.append)
    places: dict[tuple[str, str], list[str]] = {}
    for where in dict.fromkeys(one.where for one in lines):
        for last in served(lines, where)[-1:]:
            places.setdefault((last.tag, last.content), []).append(where)
    return places, problems
