"""Provenance of a model: the code's revision, the versions of packages, the hardware."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import service
from bentune.bundle.hardware import describe
from training.pipeline.results import Hardware

TOOLS = ("bentune", "torch", "transformers", "peft", "optimum", "optimum-onnx", "onnxruntime", "tokenizers", "bentoml")
ROOT = Path(service.__file__).resolve().parent.parent


def code_revision() -> str:
    """Return the checkout's commit, or the version of an installed wheel.

    The commit ends with `-dirty` when the checkout has changed files.
    """
    try:
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"]
        revision = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # no git
        revision = ""
    return revision or f"bentune {importlib.metadata.version('bentune')}"


def tool_versions() -> dict[str, str]:
    """Return Python's version and those of TOOLS, by name."""
    return {"python": sys.version.split()[0]} | {tool: importlib.metadata.version(tool) for tool in TOOLS}


def training_hardware() -> Hardware:
    """Describe the CPU and the GPUs that torch trains on here."""
    import torch

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return Hardware(cpu=describe(), gpus=gpus)
