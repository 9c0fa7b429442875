"""Stage `export`: the finished model as an ONNX file, written by Optimum, with the processor for serving."""

import logging
import shutil
import warnings
from pathlib import Path

from optimum.exporters.onnx import main_export

from bentune.bundle.errors import BentuneError
from bentune.bundle.files import sha256_file
from training.pipeline.layout import ExportFiles
from training.pipeline.results import ExportResult
from training.pipeline.stage import Context
from training.tasks.base.load import quiet
from training.tasks.registry import task_of
from training.tasks.saved import finished, processor_in


def run(context: Context) -> ExportResult:
    """Write model/fp32.onnx, processor/ and config.json.

    Raises BentuneError when the exporter fails.
    """
    quiet()
    work, model, task = context.work, finished(context.inputs), task_of(context.recipe)
    files = ExportFiles(work)
    exported = work / "optimum"
    with context.report.task("exporting to ONNX", None):
        _export(model, exported, task.onnx_task)
    files.model.mkdir()
    (exported / "model.onnx").rename(files.fp32)
    (exported / "config.json").rename(files.config)
    files.processor.mkdir()
    task.write_processor(processor_in(model), exported, work)
    shutil.rmtree(exported)
    return ExportResult(onnx_sha256=sha256_file(files.fp32), onnx_bytes=files.fp32.stat().st_size)


def _export(merged: Path, output: Path, task: str) -> None:
    # Optimum's own check uses random tokens and only logs a difference; `verify` uses test rows and stops.
    logging.getLogger("optimum").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            main_export(
                str(merged), output, task=task, do_validation=False, library_name="transformers", framework="pt"
            )
    except OSError:
        raise
    except Exception as error:  # torch's errors have no common base
        raise BentuneError(f"export: Optimum could not export {merged}: {type(error).__name__}: {error}") from error
