"""The previous version that a run continues: its bundle, required similarities, and its weights."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import bentoml

from bentune.bundle.errors import InputError
from bentune.bundle.files import sha256_file
from bentune.bundle.manifest import Bundle, open_bundle
from bentune.bundle.seen_rows import MOST_BEFORE
from training.pipeline.layout import MergeFiles, PackageFiles
from training.pipeline.results import PackageResult
from training.pipeline.run_dir import RunDir
from training.recipe.recipe import Recipe
from training.tasks.registry import target_of

SHOWN = 5


def open_parent(tag: str, key: str = "parent") -> Bundle:
    """Open the bundle NAME:VERSION of the BentoML model store.

    `key` is the recipe's key that names the bundle. Raises InputError, BundleError.
    """
    try:
        bundle = open_bundle(Path(bentoml.models.get(tag).path))
    except (bentoml.exceptions.BentoMLException, ValueError):
        bundle = None
    if bundle is None or bundle.tag != tag:
        raise InputError(
            f"{key}: {tag} is not in the BentoML model store: bring it there with `bentoml models import` or "
            "`bentoml models pull`"
        )
    return bundle


def require_alike(parent: Bundle, recipe: Recipe) -> None:
    """Raise InputError if the recipe shows that versions cannot be compared."""
    manifest = parent.manifest
    if manifest.task != recipe.task:
        raise InputError(f"task: {recipe.task} cannot continue {parent.tag}, whose task is {manifest.task}")
    if manifest.target.kind != target_of(recipe).kind:
        has = manifest.target.gives
        raise InputError(f"data.multi_label: rows of {parent.tag} have {has}, and so must those of what continues it")
    if (manifest.columns.text_pair is None) != (recipe.data.columns.text_pair is None):
        takes = "single texts" if manifest.columns.text_pair is None else "pairs of texts"
        raise InputError(f"data.columns.text_pair: {parent.tag} takes {takes}, and so must what continues it")
    names = (recipe.data.columns.text, recipe.data.columns.text_pair)
    if taken := [name for name in names if name in {"label", "set"}]:
        raise InputError(
            f"data.columns: a text column cannot be called {taken[0]!r} with a parent: the test rows are written "
            "with columns `label` and `set`; rename it"
        )
    if recipe.warm and len(parent.rows().before) >= MOST_BEFORE:
        raise InputError(
            f"train.warm_start: {parent.tag} was started warm {MOST_BEFORE} times over rows that are gone, and no "
            "bundle keeps more filters of such: start cold"
        )
    cleaned = parent.recipe().get("data", {}).get("clean", {})
    for rule, fixes in recipe.data.clean.fixes.items():
        if fixes != (cleaned.get(rule) == "fix"):
            texts = "fixed texts and this recipe fixes none" if not fixes else "texts that were not fixed"
            raise InputError(
                f"data.clean.{rule}: {parent.tag} was made of {texts}, so rows that it held out could be trained on: "
                f"give `{cleaned.get(rule, 'show')}`, or start over with `bentune run`"
            )
    if sliced := [name for name in recipe.compare.columns if name in names]:
        raise InputError(f"compare.slices: {sliced[0]!r} holds the texts; slice by another column")


def require_labels(parent: Bundle, labels: Sequence[str]) -> None:
    """Raise InputError when the data and the parent have different labels."""
    known, found = set(parent.manifest.labels), set(labels)
    for other, problem in ((known - found, "which the data does not have"), (found - known, "which it does not have")):
        if other:
            raise InputError(
                f"data.source: {parent.tag} has other labels, {_shown(sorted(other))} {problem}: versions with other "
                "labels cannot be compared; rename them with data.labels, or start over with `bentune run`"
            )


def weights_of(parent: Bundle, model: str, runs: Path) -> Path:
    """Find the directory of the merged model from which the parent was exported.

    The run that made the parent has it, because a bundle holds ONNX only. Raises InputError when no run under `runs`
    made this bundle, when the weights were changed since, or when their base model is not `model`.
    """
    if (before := parent.recipe().get("model")) != model:
        raise InputError(
            f"train.warm_start: the weights of {parent.tag} come from {before}, the recipe's model is {model}: give "
            "the same model, or start cold"
        )
    for run, made in _made(parent, runs):
        merged, files = run.record(MergeFiles.stage), run.files(MergeFiles)
        if (
            merged is None
            or not run.intact(merged)
            or sha256_file(files.weights) != made.weights_sha256
            or made.content != parent.content
        ):
            raise InputError(
                f"train.warm_start: {files.directory} is not what it was when {parent.tag} was made; put it back, or "
                "start cold"
            )
        return files.model
    raise InputError(
        f"train.warm_start: the weights of {parent.tag} are needed, which its bundle does not hold: no run in "
        f"{runs / parent.manifest.name} made it; put the directory of the run that did back there, give --runs, or "
        "start cold"
    )


def _made(parent: Bundle, runs: Path) -> Iterator[tuple[RunDir, PackageResult]]:
    """Yield the runs that made a bundle of the parent's tag, the newest first.

    Each run is paired with its result of `package`.
    """
    for path in sorted((runs / parent.manifest.name).glob(f"*/{PackageFiles.stage}"), reverse=True):
        run = RunDir(path.parent)
        record = run.record(PackageFiles.stage)
        if record is not None and run.intact(record):
            made = record.result(PackageResult)
            if made.model == parent.tag:
                yield run, made


def _shown(labels: list[str]) -> str:
    return ", ".join(map(repr, labels[:SHOWN])) + (", ..." if len(labels) > SHOWN else "")
