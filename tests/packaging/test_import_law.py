"""The rooms at run time: what serves and rolls out never loads what trains."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TRAINING_ONLY = {"torch", "transformers", "optimum", "peft", "datasets", "accelerate", "onnx", "sklearn", "training"}
MOST_ENTRIES = 16
EXTRAS = {"scipy", "statsmodels", "matplotlib"}  # imported inside the functions that need them


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in a fresh interpreter after `statement`."""
    program = f"{statement}\nimport json, sys\nprint(json.dumps(sorted({{n.partition('.')[0] for n in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(json.loads(done.stdout.splitlines()[-1]))


def modules_of(room: str) -> list[str]:
    """Every module of a room, in its folders too."""
    files = (path.relative_to(ROOT).with_suffix("") for path in sorted((ROOT / room).rglob("*.py")))
    return [".".join(path.parts).removesuffix(".__init__") for path in files]


@pytest.mark.parametrize(
    ("room", "least"), [("service", 35), ("rollout", 55), ("bentune/bundle", 13), ("bentune/quality", 8)]
)
def test_room_loads_nothing_of_training(room: str, least: int) -> None:
    # service.bento chooses a model when it is imported; test_http serves it.
    modules = [name for name in modules_of(room) if name != "service.bento"]
    assert len(modules) >= least
    loaded = loaded_by("import " + ", ".join(modules))
    assert room.partition("/")[0] in loaded
    assert not loaded & (TRAINING_ONLY | EXTRAS)


@pytest.mark.parametrize("room", ["service", "training", "rollout", "bentune", "tests"])
def test_no_folder_is_crowded(room: str) -> None:
    """A folder that holds more than fits on a screen is two folders."""
    for folder in [ROOT / room, *(path for path in (ROOT / room).rglob("*") if path.is_dir())]:
        names = [path.name for path in folder.iterdir() if not path.name.startswith(("__pycache__", "."))]
        assert len(names) <= MOST_ENTRIES, folder


def test_the_command_line_loads_a_stage_only_when_it_runs() -> None:
    assert not loaded_by("import bentune.cli") & (TRAINING_ONLY | {"bentoml", "onnxruntime", "rollout"})


def test_the_control_would_see_torch() -> None:
    assert "torch" in loaded_by("import training.tasks.logits")
