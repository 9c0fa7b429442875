"""The rooms at run time: what serves and rolls out never loads what trains."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TRAINING_ONLY = {"torch", "transformers", "optimum", "peft", "datasets", "accelerate", "onnx", "sklearn", "training"}
EXTRAS = {"scipy", "statsmodels", "matplotlib"}  # imported inside the functions that need them


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in a fresh interpreter after `statement`."""
    program = f"{statement}\nimport json, sys\nprint(json.dumps(sorted({{n.partition('.')[0] for n in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("room", ["service", "rollout"])
def test_room_loads_nothing_of_training(room: str) -> None:
    # service.bento chooses a model when it is imported; test_http serves it.
    modules = [f"{room}.{path.stem}" for path in sorted((ROOT / room).glob("*.py")) if path.stem != "bento"]
    assert len(modules) > 4
    loaded = loaded_by("import " + ", ".join(name.removesuffix(".__init__") for name in modules))
    assert room in loaded
    assert not loaded & (TRAINING_ONLY | EXTRAS)


def test_the_command_line_loads_a_stage_only_when_it_runs() -> None:
    assert not loaded_by("import bentune.cli") & (TRAINING_ONLY | {"bentoml", "onnxruntime", "rollout"})


def test_the_control_would_see_torch() -> None:
    assert "torch" in loaded_by("import training.tasks.logits")
