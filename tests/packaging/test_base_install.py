"""The base install alone, in an environment of its own: it builds and serves a Bento, and has nothing that trains."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
ABSENT = ("torch", "transformers", "optimum", "datasets", "peft", "onnx", "sklearn", "nncf")

# Runs inside the clean environment: prints the answer of the served Bento.
SERVE_AND_ASK = """
import sys, httpx
from pathlib import Path
from rollout.server.server import running
with running(sys.argv[1], cwd=Path("/")) as url:
    print(httpx.post(url + "/predict", json={"inputs": "the cat and the dog near a horse", "top_k": 1}).text)
"""


@pytest.fixture(scope="session")
def clean_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the project without extras in a new environment; return its Python.

    `uv pip install` runs on a copy of the sources, as in an image.
    """
    place = tmp_path_factory.mktemp("base")
    source = place / "source"
    source.mkdir()
    for name in ("service", "training", "rollout", "bentune"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "bentofile.yaml", "constraints.txt"):
        shutil.copyfile(ROOT / name, source / name)
    uv = [sys.executable, "-m", "uv", "--quiet"]  # a tenth of pip's time; `bentoml build` asks for pip itself
    subprocess.run([*uv, "venv", "--seed", "--python", sys.executable, place / "venv"], check=True)
    python = place / "venv/bin/python"
    install = [*uv, "pip", "install", "--python", python, "-c", source / "constraints.txt", "-e", source]
    subprocess.run(install, check=True)
    return python


def ask(python: Path, *arguments: str, cwd: Path | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, *arguments], capture_output=True, text=True, cwd=cwd or python.parent, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_nothing_that_trains_is_importable(clean_python: Path) -> None:
    program = f"import importlib.util as u; print([n for n in {ABSENT!r} if u.find_spec(n)])"
    assert ask(clean_python, "-c", program).strip() == "[]"


def test_it_builds_a_bento_and_serves_it_from_any_directory(clean_python: Path, tiny_tag: str) -> None:
    source = clean_python.parent.parent.parent / "source"
    build = ("-m", "bentoml", "build", "--output", "tag", "--version", "base-install", "--arg", f"model={tiny_tag}")
    assert f"{tiny_tag.partition(':')[0]}:base-install" in ask(clean_python, *build, cwd=source)
    answer = ask(clean_python, "-c", SERVE_AND_ASK, f"{tiny_tag.partition(':')[0]}:base-install")
    assert '"label":"animal"' in answer


def test_it_scores_a_file(clean_python: Path, tiny_tag: str, tiny_csv: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    ask(
        clean_python, "-m", "bentune", "predict", "--model", tiny_tag, "--input", str(tiny_csv), "--output", str(output)
    )
    assert len(output.read_text().splitlines()) == 300
