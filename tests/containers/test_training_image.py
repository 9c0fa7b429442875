"""The image that runs recipes, built from this checkout, as the same user as the pods of the service."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from podman import run

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NAME = "bentune/training:test"


@pytest.fixture(scope="module")
def training_image(podman: None) -> str:
    kept = Path(os.environ["CONTAINERS_CONF"]).parent
    run("env", f"PYTHON={sys.executable}", str(HERE / "training_image.sh"), str(kept))
    return NAME


def test_the_context_is_what_the_image_copies(podman: None, tmp_path: Path) -> None:
    """Runs, environments and data of a checkout are gigabytes, and may be secret."""
    (tmp_path / "Dockerfile").write_text(
        "FROM python:3.11-slim\nCOPY . /context\nRUN cd /context && ls -A && find . -name __pycache__\n"
    )
    build = ["podman", "build", "--no-cache", "--quiet=false", "--file", str(tmp_path / "Dockerfile"), str(ROOT)]
    printed = run(*build).stdout.splitlines()
    copied = {word for line in (ROOT / "training/Dockerfile").read_text().splitlines() for word in sources(line)}
    assert {line for line in printed if line and not line.startswith(("STEP", "COMMIT", "-->"))} - {
        printed[-1]
    } == copied
    run("podman", "rmi", "--force", printed[-1], check=False)


def sources(line: str) -> list[str]:
    """Return the paths that a line of a Dockerfile copies out of the context."""
    words = line.split()
    return words[1:-1] if words[:1] == ["COPY"] and not words[1].startswith("--") else []


def test_it_runs_a_recipe_from_data_to_bento_as_nobody(
    training_image: str, tiny_recipe: Path, tiny_model: Path, tiny_csv: Path, tmp_path: Path
) -> None:
    for place in ("runs", "bentoml"):
        (tmp_path / place).mkdir()
        os.chown(tmp_path / place, 1034, 1034)
    # pytest's own directories are closed to others.
    data = tmp_path / "data"
    shutil.copytree(tiny_model, data / "model")
    shutil.copyfile(tiny_csv, data / "rows.csv")
    recipe = tiny_recipe.read_text().replace(str(tiny_model), "/data/model").replace(str(tiny_csv), "/data/rows.csv")
    (data / "recipe.yaml").write_text(recipe)
    run("chmod", "-R", "a+rX", str(tmp_path))
    volumes = [part for place in ("data", "runs", "bentoml") for part in ("--volume", f"{tmp_path / place}:/{place}")]
    hardened = ["--read-only", "--tmpfs", "/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    arguments = ["run", "/data/recipe.yaml", "--runs", "/runs", "--json"]
    done = run("podman", "run", "--rm", *hardened, *volumes, training_image, *arguments)
    stages = {stage["stage"] for stage in json.loads(done.stdout)["stages"]}
    assert {"data", "train", "merge", "export", "verify", "plan", "package"} <= stages
    [bento] = (tmp_path / "bentoml/bentos").glob("*/*/bento.yaml")
    assert bento.stat().st_uid == 1034
