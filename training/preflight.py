"""Preflight: the fresh base model through two training steps, export, ONNX Runtime and the service's own tokenizer.

The stages themselves run on a few rows, the longest among them, before the first epoch. What is wrong with a base model
is thus found in seconds, and not after the training.
"""

import importlib
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from bentune.bundle.arrays import Ints
from bentune.bundle.errors import BentuneError, InputError
from bentune.bundle.files import Frozen, write_json
from training.pipeline.fingerprints import base_files_digest
from training.pipeline.follow import Silent
from training.pipeline.layout import DataFiles
from training.pipeline.provenance import tool_versions
from training.pipeline.run_dir import DiskFull, RunDir, explain_full_disk
from training.pipeline.stage import MODULES, Context, Reporter
from training.pipeline.workers import place
from training.recipe.evaluate import CalibrateSettings
from training.recipe.file import digest
from training.recipe.recipe import Recipe
from training.tasks.base.load import base_config
from training.tasks.registry import task_of
from training.tasks.saved import labels_of

FILE, WORK = ".preflight.json", "preflight.partial"
MOST_KEPT = 100
STAGES = {"train": ("data",), "merge": ("train",), "export": ("merge",), "verify": ("data", "train", "merge", "export")}
ROWS, BATCH = 16, 8


class Passed(Frozen):
    """Preflights that passed in a directory of runs: digests of base models and settings, with the seconds of each."""

    seconds: dict[str, float] = Field(default={})


def preflight(recipe: Recipe, run: RunDir, report: Reporter) -> None:
    """Run the stages up to `verify` on a few rows, unless the same model and settings have passed before.

    A warm start is left out, whose model was exported before, and a training with several processes. Raises InputError.
    """
    if recipe.warm or place().world > 1:
        return
    data = run.files(DataFiles)
    file, key = run.root.parents[1] / FILE, _key(recipe, data)
    if key in _passed(file).seconds:
        return
    start, work = time.monotonic(), run.root / WORK
    task_of(recipe).processor(recipe)  # its own messages say what is wrong
    shutil.rmtree(work, ignore_errors=True)
    try:
        with report.task("preflight: two steps, export, ONNX Runtime", None):
            require_exportable(recipe)
            with explain_full_disk(run.root):
                rehearse(recipe, data, work)
    except DiskFull:
        raise
    except Exception as error:  # of torch, PEFT, Optimum or ONNX Runtime, which have no common base
        said = str(error) if isinstance(error, BentuneError) else f"{type(error).__name__}: {_first_line(error)}"
        raise InputError(f"model: {recipe.model} did not pass the preflight, before any training: {said}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    seconds = time.monotonic() - start
    known = [*_passed(file).seconds.items()][1 - MOST_KEPT :]
    write_json(file, Passed(seconds={**dict(known), key: seconds}))
    report.say(f"[green]✓[/] [bold]preflight[/]  {seconds:.1f} s  two steps, export, ONNX Runtime, tokenizer")


def require_exportable(recipe: Recipe) -> None:
    """Raise InputError for an architecture that Optimum cannot export for the recipe's task."""
    import optimum.exporters.onnx.model_configs  # noqa: F401 (it registers the architectures)
    from optimum.exporters.tasks import TasksManager

    config, wanted = base_config(recipe), task_of(recipe).onnx_task
    try:
        tasks = TasksManager.get_supported_tasks_for_model_type(
            config.model_type, exporter="onnx", library_name="transformers"
        )
    except KeyError:
        tasks = {}
    if wanted not in tasks:
        raise InputError(
            f"Optimum cannot export the architecture {config.model_type!r} to ONNX for {wanted}; choose another base "
            "model, see docs/models.md"
        )


def rehearse(recipe: Recipe, data: DataFiles, work: Path) -> None:
    """Run the stages in `work`. Raises BentuneError."""
    small = _small(recipe)
    directories = {"data": work / "data"} | {name: work / name for name in STAGES}
    for directory in directories.values():
        directory.mkdir(parents=True)
    _write_rows(data, DataFiles(directories["data"]))
    for name, reads in STAGES.items():
        stage = importlib.import_module(MODULES[name])
        stage.run(Context(small, directories[name], {one: directories[one] for one in reads}, Silent()))


def _small(recipe: Recipe) -> Recipe:
    """Return the recipe for two steps without validation, distillation and pruning."""
    train = recipe.train.model_copy(
        update={"epochs": 1.0, "batch_size": BATCH, "accumulation": 1, "early_stopping": None, "balance": "none"}
    )
    split = recipe.data.split.model_copy(update={"validation": 0.0})
    # Two steps leave nearly equal logits, of which rounding may turn the order: the bound on differences counts here.
    verify = recipe.verify.model_copy(update={"rows": ROWS, "golden_rows": 4, "label_flips": ROWS + 2})
    return recipe.model_copy(
        update={
            "train": train,
            "data": recipe.data.model_copy(update={"split": split}),
            "distill": None,
            "prune": None,
            "parent": None,
            "calibrate": CalibrateSettings(),
            "verify": verify,
        }
    )


def _write_rows(data: DataFiles, files: DataFiles) -> None:
    """Write the longest rows and some others; `verify` adds a text that must be cut and one of a letter."""
    lengths = _lengths(data.train)
    others = np.linspace(0, len(lengths) - 1, min(len(lengths), ROWS - BATCH)).astype(np.int64)
    longest = np.argsort(lengths, kind="stable")[-BATCH:]
    rows = _taken(data.train, np.unique(np.concatenate([longest, others])))
    pq.write_table(rows, files.train)
    pq.write_table(rows, files.test)
    for name in (data.labels, data.target):
        shutil.copyfile(name, files.directory / name.name)


def _lengths(file: Path) -> Ints:
    with pq.ParquetFile(file) as stored:
        found = [_characters(batch) for batch in stored.iter_batches(columns=["text", "text_pair"])]
    return np.concatenate(found)


def _characters(rows: pa.RecordBatch | pa.Table) -> Ints:
    pairs = pc.fill_null(pc.utf8_length(rows["text_pair"]), 0)
    return np.asarray(pc.add(pc.utf8_length(rows["text"]), pairs), dtype=np.int64)


def _taken(file: Path, rows: Ints) -> pa.Table:
    """Return the rows of these numbers, which rise."""
    tables, start = [], 0
    with pq.ParquetFile(file) as stored:
        for batch in stored.iter_batches():
            inside = rows[(rows >= start) & (rows < start + len(batch))] - start
            tables.append(pa.Table.from_batches([batch.take(pa.array(inside))]))
            start += len(batch)
    return pa.concat_tables(tables)


def _key(recipe: Recipe, data: DataFiles) -> str:
    """Return a digest of all that the preflight depends on, rows aside."""
    return digest(
        {
            "model": base_files_digest(recipe.model),
            "recipe": {name: recipe.model_dump(mode="json")[name] for name in ("task", "method", "max_tokens")},
            "precision": recipe.train.precision,
            "columns": recipe.data.columns.model_dump(mode="json"),
            "multi_label": recipe.data.multi_label,
            "labels": len(labels_of(data.directory)),
            "tools": tool_versions(),
        }
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else ""


def _passed(file: Path) -> Passed:
    try:
        return Passed.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return Passed()
