"""Stage `export`: writes the finished model as an ONNX file through Optimum, with the processor that serving reads."""

import logging
import shutil
import warnings
from pathlib import Path

from optimum.exporters.onnx import main_export

from bentune.bundle.errors import BentuneError
from bentune.bundle.manifest import sha256_file
from bentune.bundle.processor import IMAGES
from training.pipeline.stage import Context, Summary
from training.prove.exported import TOKENIZER, write_settings
from training.tasks.base import quiet
from training.tasks.saved import finished, processor_in

TASKS = {"text-classification": "text-classification", IMAGES: "image-classification"}
ONNX = "model/fp32.onnx"


def run(context: Context) -> Summary:
    """Write model/fp32.onnx, processor/ and config.json. Raises BentuneError when the exporter fails."""
    quiet()
    work, merged = context.work, finished(context.inputs) / "model"
    exported = work / "optimum"
    with context.report.task("exporting to ONNX", None):
        _export(merged, exported, TASKS[context.recipe.task])
    (work / "model").mkdir()
    (exported / "model.onnx").rename(work / ONNX)
    (exported / "config.json").rename(work / "config.json")
    (work / "processor").mkdir()
    if context.recipe.task != IMAGES:
        (exported / "tokenizer.json").rename(work / TOKENIZER)
    write_settings(processor_in(merged), work)
    shutil.rmtree(exported)
    return {"onnx_sha256": sha256_file(work / ONNX), "onnx_bytes": (work / ONNX).stat().st_size}


def _export(merged: Path, output: Path, task: str) -> None:
    # Its own check runs random tokens and only logs a difference; `verify` runs real rows and stops.
    logging.getLogger("optimum").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            main_export(
                str(merged), output, task=task, do_validation=False, library_name="transformers", framework="pt"
            )
    except OSError:
        raise
    except Exception as error:  # the exporter raises whatever torch raised
        raise BentuneError(f"export: Optimum could not export {merged}: {type(error).__name__}: {error}") from error
