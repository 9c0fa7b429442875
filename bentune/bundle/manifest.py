"""Manifest of a bundle, and the functions that seal and open a bundle.

manifest.json     identity, and the sha256 of every other file and of itself; written last
model/            fp32.onnx and the other variants that the plan may choose
processor/        settings.json, and tokenizer.json for texts
plan.json         runtime plan with its measurements
evidence.json     metrics, parity chain, verdicts of comparisons
golden.jsonl      test inputs with the scores they must give
baseline.json     histograms of test inputs, for drift
rows.json         filters of the training rows and the test rows
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    Field,
    JsonValue,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    model_serializer,
    model_validator,
)

from bentune.bundle.baseline import Baseline, Binned
from bentune.bundle.errors import BundleError
from bentune.bundle.files import Frozen, json_bytes, sha256_file, write_json
from bentune.bundle.plan import FP32, Plan, model_file
from bentune.bundle.processor import TOKEN_LENGTH, TRUNCATED, ImageSettings, InputSettings, ProcessorSettings
from bentune.bundle.seen_rows import SeenRows
from bentune.bundle.targets.registry import ENTRIES, target_in
from bentune.bundle.targets.target import Target
from bentune.bundle.verdict import Verdict, verdicts_of

SCHEMA_VERSION = 3
MANIFEST = "manifest.json"
EVIDENCE = "evidence.json"
ROWS = "rows.json"
BASELINE = "baseline.json"
LABEL = "label"
SETTINGS = "processor/settings.json"
STORE_FILE = "model.yaml"  # BentoML's own description in its model store
MODULE = "bentune"  # marks a bundle among other models in the BentoML model store

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class FileEntry(Frozen):
    """One file of the bundle: `size` in bytes."""

    sha256: Sha256
    size: int = Field(ge=0)


class BaseModelInfo(Frozen):
    """Base model that was tuned: its source, and the sha256 over its weight files."""

    source: str
    sha256: Sha256


class Limits(Frozen):
    """Limits of one input; `max_tokens` counts special tokens."""

    max_tokens: int = Field(ge=1)


class ImageLimits(Limits):
    """Limits of an image: `max_pixels` as it is sent; `max_tokens` is its cost in patches of the model."""

    max_pixels: int = Field(ge=1)


class Columns(Frozen):
    """Columns of the training rows, so that the same file can be scored without naming them again."""

    text: str
    text_pair: str | None = None


class Parent(Frozen):
    """Version that this one continues; its test rows stayed held out."""

    tag: str
    content: Sha256


class Manifest(Frozen):
    """Manifest of the bundle: its identity, its limits, and every file in it.

    `target` is written as its entries, so that older bundles keep their spelling. `task` is any name; the service
    checks that it can serve it. `seal` writes `files` and `own_sha256`, the hash of manifest.json with that value
    empty.
    """

    schema_version: int = SCHEMA_VERSION
    name: Name
    version: Name
    created_at: datetime
    task: Name
    columns: Columns
    target: SerializeAsAny[Target]
    limits: Limits | ImageLimits
    base_model: BaseModelInfo
    method: dict[str, JsonValue]
    recipe_digest: Sha256
    data_fingerprint: Sha256
    parent: Parent | None = None
    code_revision: str
    tools: dict[str, str]
    files: dict[str, FileEntry]
    own_sha256: str = ""

    @property
    def labels(self) -> list[str]:
        """Labels of the target, in the order of the outputs."""
        return self.target.labels

    @model_validator(mode="before")
    @classmethod
    def _read_target(cls, entries: Any) -> Any:
        if not isinstance(entries, dict) or isinstance(entries.get("target"), Target):
            return entries
        rest = {name: value for name, value in entries.items() if name not in ENTRIES}
        return rest | {"target": target_in(entries)}

    @model_serializer(mode="wrap")
    def _write_target(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = {}
        for name, value in plain(self).items():
            written |= self.target.wire() if name == "target" else {name: value}
        return written


class GoldenRow(Frozen):
    """Golden row: a test input with its scores, in the order of the manifest's labels.

    `text` is a data URL where the model takes images. `scores` has an entry for every variant and provider that the
    plan may choose, under `scores_key`. `label` is fp32's best label.
    """

    text: str
    text_pair: str | None = None
    label: str
    scores: dict[str, list[float]]
    tolerance: float = Field(gt=0)


@dataclass(frozen=True, slots=True)
class Bundle:
    """Opened bundle; every hash was checked.

    `digest` is the sha256 of manifest.json, and so covers all files that it names. `content` is the same without
    evidence.json: it stays when a verdict is written, and a verdict refers to it.
    """

    root: Path
    digest: str
    content: str
    manifest: Manifest
    plan: Plan
    processor: InputSettings
    golden: list[GoldenRow]
    baseline: Baseline

    @property
    def tag(self) -> str:
        """`name:version`, the tag in the BentoML model store."""
        return f"{self.manifest.name}:{self.manifest.version}"

    def evidence(self) -> dict[str, Any]:
        """Read evidence.json. Raises BundleError when it is not an object."""
        try:
            evidence = json.loads((self.root / EVIDENCE).read_bytes())
        except (ValueError, RecursionError):
            evidence = None
        if not isinstance(evidence, dict):
            raise BundleError(f"{self.root / EVIDENCE} is no JSON object; package the model again")
        return evidence

    def recipe(self) -> dict[str, Any]:
        """Return the recipe in evidence.json as it was written; empty without one."""
        recipe = self.evidence().get("recipe")
        return recipe if isinstance(recipe, dict) else {}

    def verdicts(self) -> list[Verdict]:
        """Return the verdicts of comparisons, the newest last.

        Raises BundleError for an invalid verdict.
        """
        try:
            return verdicts_of(self.evidence(), self.content)
        except ValidationError as error:
            raise _wrong_part(self.root / EVIDENCE, error) from None

    def verdict(self) -> Verdict | None:
        """Return the newest verdict, if any.

        Raises BundleError for an invalid verdict.
        """
        return next(reversed(self.verdicts()), None)

    def rows(self) -> SeenRows:
        """Read the filters of the training rows and of the test rows."""
        return _parse(SeenRows, self.root / ROWS)


def seal(root: Path, manifest: Manifest) -> Manifest:
    """Record every file under `root` in the manifest, and write the manifest last.

    Returns the manifest as written. Raises BundleError when a required file is missing.
    """
    files = {
        path.relative_to(root).as_posix(): FileEntry(sha256=sha256_file(path), size=path.stat().st_size)
        for path in _regular_files(root)
    }
    complete = manifest.model_copy(update={"files": dict(sorted(files.items()))})
    _require_parts(root, complete, {FP32})
    return _write_manifest(root, complete)


def seal_evidence(bundle: Bundle) -> None:
    """Record evidence.json in the manifest after a change of it.

    The other files are not checked again: `bundle` was just opened.
    """
    path = bundle.root / EVIDENCE
    changed = {EVIDENCE: FileEntry(sha256=sha256_file(path), size=path.stat().st_size)}
    _write_manifest(bundle.root, bundle.manifest.model_copy(update={"files": bundle.manifest.files | changed}))


def _write_manifest(root: Path, complete: Manifest) -> Manifest:
    sealed = complete.model_copy(update={"own_sha256": _own_sha256(complete)})
    write_json(root / MANIFEST, sealed)
    return sealed


def read_manifest(root: Path) -> Manifest:
    """Read a bundle's manifest without checking the files that it names.

    Raises BundleError for a manifest that is missing or was changed.
    """
    path = root / MANIFEST
    if not path.is_file():
        raise BundleError(f"{root} is not a bundle: it has no {MANIFEST}; `bentune package` writes one")
    return _parse_manifest(path, path.read_bytes())


def open_bundle(root: Path) -> Bundle:
    """Read a bundle and check every byte of it.

    Raises BundleError, with the file's name, for a missing or changed file, a file that the manifest does not
    name, a path that leaves the directory, and an unknown schema version.
    """
    manifest_path = root / MANIFEST
    if not manifest_path.is_file():
        raise BundleError(f"{root} is not a bundle: it has no {MANIFEST}; `bentune package` writes one")
    manifest_bytes = manifest_path.read_bytes()
    manifest = _parse_manifest(manifest_path, manifest_bytes)
    for name, entry in manifest.files.items():
        _check_file(root, name, entry)
    unnamed = {p.relative_to(root).as_posix() for p in _regular_files(root)} - set(manifest.files)
    if unnamed:
        raise BundleError(f"{root / min(unnamed)} is not named in {MANIFEST}: the bundle was changed; package it again")
    plan = _parse(Plan, root / "plan.json")
    _require_parts(root, manifest, plan.variants)
    processor = _processor(root, manifest)
    baseline = _parse(Baseline, root / BASELINE)
    _require_baseline_of(manifest.target, processor, baseline, root / BASELINE)
    return Bundle(
        root=root,
        digest=hashlib.sha256(manifest_bytes).hexdigest(),
        content=_content_digest(manifest),
        manifest=manifest,
        plan=plan,
        processor=processor,
        golden=[_parse_text(GoldenRow, root / "golden.jsonl", line) for line in _lines(root / "golden.jsonl")],
        baseline=baseline,
    )


def _processor(root: Path, manifest: Manifest) -> InputSettings:
    return _parse(_settings_of(manifest), root / SETTINGS)


def _settings_of(manifest: Manifest) -> type[ImageSettings] | type[ProcessorSettings]:
    """Return the class of the processor's settings, by the class of the limits."""
    return ImageSettings if isinstance(manifest.limits, ImageLimits) else ProcessorSettings


def _require_baseline_of(target: Target, settings: InputSettings, baseline: Baseline, path: Path) -> None:
    """Require the histograms of the target, and of inputs at least that of their length.

    Bundles made before they were counted have no other ones of inputs.
    """
    wanted, found = {TOKEN_LENGTH, *target.features}, baseline.features.keys()
    if not wanted <= found <= wanted | settings.features:
        raise BundleError(f"{path} has the histograms {', '.join(found)}, not {', '.join(sorted(wanted))}")
    counted = {LABEL: len(target.counted), TRUNCATED: 2}
    for name, histogram in baseline.features.items():
        if isinstance(histogram, Binned) == (name in counted):
            raise BundleError(f"{path}: the histogram {name} has {'no ' if name not in counted else ''}edges")
        if name in counted and len(histogram.counts) != counted[name]:
            raise BundleError(f"{path}: the histogram {name} has {len(histogram.counts)} bins, not {counted[name]}")


def _regular_files(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        if path.is_symlink():
            raise BundleError(f"{path} is a symbolic link: a bundle holds plain files only")
        if path.is_file() and path.relative_to(root).as_posix() not in (MANIFEST, STORE_FILE):
            yield path


def _require_parts(root: Path, manifest: Manifest, variants: set[str]) -> None:
    parts = ("plan.json", EVIDENCE, "golden.jsonl", BASELINE, ROWS)
    models = [model_file(variant) for variant in sorted(variants)]
    for name in (*parts, *models, *_settings_of(manifest).files, SETTINGS):
        if name not in manifest.files:
            raise BundleError(f"{root / name} is missing from the bundle; package it again")


def _parse_manifest(path: Path, content: bytes) -> Manifest:
    try:
        raw = json.loads(content)
        version = raw["schema_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{path} is not a manifest: {type(error).__name__}; package the model again") from error
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{path} has schema version {version!r}, this Bentune reads {SCHEMA_VERSION}: "
            "install the Bentune that wrote it, or package the model again"
        )
    manifest = _parse_text(Manifest, path, content)
    # Only the exact spelling of `seal` is accepted, so that a changed byte which JSON ignores is detected too.
    if json_bytes(manifest) != content or _own_sha256(manifest) != manifest.own_sha256:
        raise BundleError(f"{path} was changed after it was written; package the model again")
    return manifest


def _own_sha256(manifest: Manifest) -> str:
    return hashlib.sha256(json_bytes(manifest.model_copy(update={"own_sha256": ""}))).hexdigest()


def _content_digest(manifest: Manifest) -> str:
    files = {name: entry for name, entry in manifest.files.items() if name != EVIDENCE}
    return hashlib.sha256(json_bytes(manifest.model_copy(update={"files": files, "own_sha256": ""}))).hexdigest()


def _check_file(root: Path, name: str, entry: FileEntry) -> None:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or "\\" in name or str(relative) != name:
        raise BundleError(f"{root / MANIFEST} names {name!r}: a path must stay inside the bundle")
    path = root / name
    if path.is_symlink() or not path.resolve().is_relative_to(root.resolve()):
        raise BundleError(f"{path} leads outside the bundle")
    if not path.is_file():
        raise BundleError(f"{path} is missing; package the model again")
    if path.stat().st_size != entry.size or sha256_file(path) != entry.sha256:
        raise BundleError(f"{path} was changed after it was written: its sha256 is not the manifest's")


Part = TypeVar("Part", bound=BaseModel)


def _parse(model: type[Part], path: Path) -> Part:
    return _parse_text(model, path, path.read_bytes())


def _parse_text(model: type[Part], path: Path, content: bytes | str) -> Part:
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise _wrong_part(path, error) from None


def _wrong_part(path: Path, error: ValidationError) -> BundleError:
    problem = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(step) for step in problem["loc"])
    return BundleError(f"{path}: {where or 'content'}: {problem['msg']}")


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line]
