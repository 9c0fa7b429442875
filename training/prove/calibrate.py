"""Stage `calibrate`: a temperature, fitted on the validation set and folded into the merged model's weights."""

import shutil

import numpy as np

from bentune.bundle.files import sha256_file, write_json
from training.pipeline.layout import CalibrateFiles, DataFiles, MergeFiles
from training.pipeline.results import CalibrateResult, Temperature
from training.pipeline.stage import Context
from training.prove.temperature import fit_temperature, fold
from training.tasks.base.classifier import load_classifier
from training.tasks.base.load import quiet
from training.tasks.logits import one_batch, torch_logits
from training.tasks.registry import target_of
from training.tasks.rows import read_rows
from training.tasks.saved import processor_in, target_in


def run(context: Context) -> CalibrateResult:
    """Write temperature.json and model/, the merged model with scaled logits.

    Raises InputError as `fold` does.
    """
    quiet()
    merged, files = context.files(MergeFiles).model, CalibrateFiles(context.work)
    rows = read_rows(context.files(DataFiles).validation)
    model, tokenizer = load_classifier(merged), processor_in(merged)
    with context.report.task("fitting the temperature", len(rows)) as advance:
        logits, ids = torch_logits(model, tokenizer, rows, context.recipe.max_tokens, advance)
    target = target_in(context.files(DataFiles).directory)
    fitted = fit_temperature(logits, rows.labels, target_of(context.recipe), target)
    shortest = np.array([min(range(len(rows)), key=lambda row: len(ids[row]))])
    one = one_batch(tokenizer, rows.take(shortest), context.recipe.max_tokens)
    fitted = fitted.model_copy(update={"layer": fold(model, one, fitted.temperature)})
    shutil.copytree(merged, files.model)  # use has changed the tokenizer in memory
    model.save_pretrained(files.model, safe_serialization=True)
    write_json(files.temperature, fitted)
    context.report.say(_message(fitted))
    return CalibrateResult(**fitted.model_dump(), weights_sha256=sha256_file(files.weights))


def _message(fitted: Temperature) -> str:
    if fitted.problem:
        return f"[yellow]![/] {fitted.problem}"
    return (
        f"temperature {fitted.temperature:.3f}, fitted on {fitted.rows} validation rows: their log loss falls from "
        f"{fitted.log_loss_before:.3f} to {fitted.log_loss_after:.3f}"
    )
