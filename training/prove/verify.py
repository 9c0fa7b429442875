"""Stage `verify`: comparison of the same test rows at every hop from the trained model to the served one.

    trained (torch, base + adapter) -> merged (torch) -> fp32 ONNX (the service's own predictor) -> the same in batches

`calibrate` adds a hop: merged, its logits divided by the temperature -> calibrated (torch) -> fp32 ONNX.
Each point is compared with the point before it. The first hop that exceeds a bound stops the run and is named.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from bentune.bundle.arrays import Logits
from bentune.bundle.errors import GateError
from bentune.bundle.files import write_json
from bentune.bundle.hardware import visible_cores
from bentune.bundle.plan import CPU, FP32, model_file
from bentune.bundle.targets.target import Target
from service.engine.predictor import Predictor, Session, batches_by_length
from training.pipeline.layout import CalibrateFiles, DataFiles, ExportFiles, MergeFiles, TrainFiles, VerifyFiles
from training.pipeline.results import Temperature, VerifyResult
from training.pipeline.stage import Context
from training.prove.exported import encoded, ids_of, served_task
from training.prove.golden import golden_rows
from training.prove.parity import Hop, Parity, Stop, compare, hop_table
from training.recipe.recipe import Recipe
from training.tasks.base.classifier import load_classifier
from training.tasks.base.load import quiet
from training.tasks.logits import token_ids, torch_logits
from training.tasks.registry import task_of
from training.tasks.rows import Rows, joined, open_rows
from training.tasks.saved import config_labels, labels_of, processor_in, target_in, tokenizer_of
from training.train.methods import load_tuned

BATCH_TOKENS = 2048


def run(context: Context) -> VerifyResult:
    """Write parity.json and golden.jsonl.

    Raises GateError with the name of the first failing hop.
    """
    quiet()
    recipe, data, files = context.recipe, context.files(DataFiles), VerifyFiles(context.work)
    target = target_in(data.directory)
    everything = open_rows(data.test)
    chosen = np.random.default_rng(recipe.seed).permutation(len(everything))[: recipe.verify.rows]
    rows = everything.take(np.sort(chosen))
    extremes = _extremes(recipe, context.files(TrainFiles).directory, rows)
    tested, rows = len(rows), joined([rows, extremes]) if len(extremes) else rows
    exported = context.files(ExportFiles).directory
    points = 5 if context.has(CalibrateFiles) else 4
    with context.report.task("verifying", points * len(rows)) as advance:
        directory = context.files(TrainFiles).directory
        probes = task_of(recipe).probes(tokenizer_of(directory))
        trained = _trained(recipe, directory, rows, probes, advance)
        with _blamed_on("merge"):
            merged = finished = _saved("merged", recipe, context.files(MergeFiles).model, rows, probes, advance)
        bounds, hops = recipe.verify, list[Hop]()
        judged = partial(compare, flips_allowed=bounds.label_flips, target=target)
        hops.append(judged("merge", trained, merged, bounds.merge_tolerance))
        if context.has(CalibrateFiles):
            with _blamed_on("calibrate"):
                divided = _divided(merged, context.files(CalibrateFiles).temperature)
                calibrated = context.files(CalibrateFiles).model
                finished = _saved("calibrated", recipe, calibrated, rows, probes, advance)
            hops.append(judged("calibrate", divided, finished, bounds.calibrate_tolerance))
        with _blamed_on("export"):
            predictor = served(exported, recipe, target)
            alone = _onnx("fp32 ONNX", predictor, recipe, exported, rows, probes, advance, token_budget=1)
        with _blamed_on("batch"):
            batched = _onnx("fp32 ONNX in batches", predictor, recipe, exported, rows, probes, advance, BATCH_TOKENS)
    hops.append(judged("export", finished, alone, bounds.export_tolerance))
    hops.append(judged("batch", alone, batched, bounds.batch_tolerance))
    write_json(files.parity, Parity(rows=tested, hops=hops))
    context.report.say(hop_table(hops))
    for hop in hops:
        if hop.problems:
            raise GateError(
                hop.hop, f"verify: the hop `{hop.hop}` ({hop.before} -> {hop.after}): " + "; ".join(hop.problems)
            )
    golden = golden_rows(rows, alone, bounds.golden_rows, bounds.golden_tolerance, target, extremes=len(extremes))
    files.golden.write_text("".join(row.model_dump_json() + "\n" for row in golden), encoding="utf-8")
    return VerifyResult.model_validate({hop.hop: hop.largest_difference for hop in hops} | {"rows": tested})


def _extremes(recipe: Recipe, trained: Path, rows: Rows) -> Rows:
    """Make rows of the longest and of the shortest input, which need not be among the test rows."""
    texts = task_of(recipe).extremes(tokenizer_of(trained), recipe.max_tokens)
    return Rows(texts, list(texts) if rows.paired else None, rows.labels[[0] * len(texts)])


def served(exported: Path, recipe: Recipe, target: Target) -> Predictor:
    """Open the service's predictor on the exported files."""
    return Predictor(served_task(exported, recipe, target), Session(exported / model_file(FP32), CPU, visible_cores()))


@contextlib.contextmanager
def _blamed_on(hop: str) -> Iterator[None]:
    """Convert any error to a GateError of `hop`, whose model cannot be run."""
    try:
        yield
    except Exception as error:  # the errors of torch, safetensors, tokenizers and ONNX Runtime have no common base
        said = (str(error).strip().splitlines() or [""])[0]
        raise GateError(
            hop, f"verify: the hop `{hop}`: its model cannot be run: {type(error).__name__}: {said}"
        ) from error


def _trained(recipe: Recipe, directory: Path, rows: Rows, probes: list[str], advance: Callable[[int], None]) -> Stop:
    labels, tokenizer = labels_of(directory), tokenizer_of(directory)
    logits, ids = torch_logits(load_tuned(recipe, labels, directory), tokenizer, rows, recipe.max_tokens, advance)
    digest, read = task_of(recipe).digest(tokenizer), token_ids(tokenizer, probes, recipe.max_tokens)
    return Stop("trained", logits, ids, labels, digest, read)


def _saved(
    name: str, recipe: Recipe, directory: Path, rows: Rows, probes: list[str], advance: Callable[[int], None]
) -> Stop:
    model, tokenizer = load_classifier(directory), processor_in(directory)
    logits, ids = torch_logits(model, tokenizer, rows, recipe.max_tokens, advance)
    digest, read = task_of(recipe).digest(tokenizer), token_ids(tokenizer, probes, recipe.max_tokens)
    return Stop(name, logits, ids, config_labels(directory), digest, read)


def _divided(merged: Stop, file: Path) -> Stop:
    temperature = Temperature.model_validate_json(file.read_bytes()).temperature
    return replace(merged, name=f"merged / {temperature:.4g}", logits=merged.logits / np.float32(temperature))


def _onnx(
    name: str,
    predictor: Predictor,
    recipe: Recipe,
    exported: Path,
    rows: Rows,
    probes: list[str],
    advance: Callable[[int], None],
    token_budget: int,
) -> Stop:
    encoder = predictor.task.encoder
    tokens = encoded(rows, encoder)
    parts: list[Logits] = []
    order: list[int] = []
    for batch in batches_by_length([len(row) for row in tokens], token_budget):
        parts.append(predictor.logits([tokens[row] for row in batch]))
        order += batch
        advance(len(batch))
    logits = np.concatenate(parts)[np.argsort(order)]
    read = ids_of([encoder.encode(text, None, truncate=True) for text in probes])
    return Stop(name, logits, ids_of(tokens), config_labels(exported), task_of(recipe).exported_digest(exported), read)
