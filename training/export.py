"""Stage `export`: writes the finished model as an ONNX file through Optimum, with the tokenizer that serving reads."""

import logging
import shutil
import warnings
from pathlib import Path

from optimum.exporters.onnx import main_export
from transformers import AutoTokenizer

from service.contract import ProcessorSettings, sha256_file, write_json
from service.errors import BentuneError
from training.base import quiet
from training.stage import Context, Summary
from training.tuned import finished

TASKS = {"text-classification": "text-classification"}
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
    (exported / "tokenizer.json").rename(work / "processor/tokenizer.json")
    write_json(work / "processor/settings.json", _settings(merged))
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


def _settings(merged: Path) -> ProcessorSettings:
    tokenizer = AutoTokenizer.from_pretrained(merged, use_fast=True)
    return ProcessorSettings(
        pad_id=tokenizer.pad_token_id,
        pad_type_id=tokenizer.pad_token_type_id,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
    )
