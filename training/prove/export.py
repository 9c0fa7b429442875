"""Stage `export`: the finished model as an ONNX file, written by Optimum, with the processor that serving reads."""

import logging
import shutil
import warnings
from pathlib import Path

from optimum.exporters.onnx import main_export

from bentune.bundle.errors import BentuneError
from bentune.bundle.files import sha256_file
from training.pipeline.stage import Context, Summary
from training.tasks.base import quiet
from training.tasks.registry import task_of
from training.tasks.saved import finished, processor_in

ONNX = "model/fp32.onnx"


def run(context: Context) -> Summary:
    """Write model/fp32.onnx, processor/ and config.json. Raises BentuneError when the exporter fails."""
    quiet()
    work, merged, task = context.work, finished(context.inputs) / "model", task_of(context.recipe)
    exported = work / "optimum"
    with context.report.task("exporting to ONNX", None):
        _export(merged, exported, task.onnx_task)
    (work / "model").mkdir()
    (exported / "model.onnx").rename(work / ONNX)
    (exported / "config.json").rename(work / "config.json")
    (work / "processor").mkdir()
    task.write_processor(processor_in(merged), exported, work)
    shutil.rmtree(exported)
    return {"onnx_sha256": sha256_file(work / ONNX), "onnx_bytes": (work / ONNX).stat().st_size}


def _export(merged: Path, output: Path, task: str) -> None:
    # Optimum's own check uses random tokens and only logs a difference; `verify` uses real rows and stops.
    logging.getLogger("optimum").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            main_export(
                str(merged), output, task=task, do_validation=False, library_name="transformers", framework="pt"
            )
    except OSError:
        raise
    except Exception as error:  # the exporter passes on torch's errors
        raise BentuneError(f"export: Optimum could not export {merged}: {type(error).__name__}: {error}") from error
