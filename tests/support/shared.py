"""Fixtures shared by the workers of a test run: the first that wants one builds it, while the others wait."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from handmade import NAME, VERSION, make_bundle
from tiny import Quiet

ROOT = Path(__file__).parents[2]
STORES = ("models", "bentos")


def place_of(factory: pytest.TempPathFactory) -> Path:
    """Return the directory that all workers of this run share."""
    base = factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    shared.mkdir(exist_ok=True)
    return shared


def once(directory: Path, build: Callable[[Path], object]) -> Path:
    """Return `directory`, which `build` fills in the first process that asks.

    The other processes wait for it. It is built where it stays, because recipes and runs name their files. What a
    failed build left is built again.
    """
    done = directory.with_name(f"{directory.name}.done")
    with directory.with_name(f"{directory.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            build(directory)
            done.touch()
    return directory


def run_recipe(recipe_file: Path, place: Path, *, package: bool = True) -> Path:
    """Run every stage of a recipe below `place` and return the run's directory.

    What `package` put into the BentoML stores is copied below `place` too.
    """
    from training.pipeline.pipeline import run_stage, stages_of
    from training.pipeline.run_dir import RunDir
    from training.recipe.file import load_recipe

    recipe = load_recipe(recipe_file).recipe
    stages = stages_of(recipe)
    with RunDir.open(place / "runs", recipe.name) as run:
        for stage in stages if package else stages[:-1]:
            run_stage(stage.name, recipe, run, Quiet())
    if package:
        export(json.loads((run.root / "package/artifacts.json").read_text())["model"], place / "stores")
    return run.root


def run_in(place: Path) -> Path:
    """Return the run that `run_recipe` made below `place`."""
    (found,) = (path for path in (place / "runs").glob("*/*") if path.is_dir())
    return found


def adopt_run(place: Path, directory: Path) -> Path:
    """Copy the run of `run_recipe` below `directory` and adopt what it stored.

    The copy names the new places.
    """
    run = run_in(place)
    adopt(place / "stores")
    root = directory / run.parent.name / run.name
    shutil.copytree(run, root)
    file = root / "package/artifacts.json"
    artifacts = json.loads(file.read_text())
    name, _, version = artifacts["model"].partition(":")
    places = {
        key: str(_home() / kind / name / version) for key, kind in (("bundle", "models"), ("bento_path", "bentos"))
    }
    file.write_text(json.dumps(artifacts | places))
    record = json.loads((root / "package/stage.json").read_text())
    record["files"][file.name] = {"sha256": sha256(file.read_bytes()).hexdigest(), "size": file.stat().st_size}
    record["summary"] |= places
    (root / "package/stage.json").write_text(json.dumps(record))
    return root


def store_handmade(name: str = NAME, **options: Any) -> Path:
    """Put a handmade bundle into this process's model store.

    Return its directory there.
    """
    import bentoml

    from bentune.bundle.manifest import MODULE

    with bentoml.models.create(f"{name}:{VERSION}", module=MODULE, labels={"task": "text-classification"}) as stored:
        make_bundle(Path(stored.path), name, **options)
    return Path(bentoml.models.get(f"{name}:{VERSION}").path)


def build_bento(tag: str, place: Path) -> None:
    """Build the Bento of a stored bundle, and copy it to `place`."""
    build = ["bentoml", "build", ".", "--version", tag.partition(":")[2], "--arg", f"model={tag}"]
    done = subprocess.run([sys.executable, "-m", *build], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    export(tag, place)


def export(tag: str, directory: Path) -> None:
    """Copy a bundle and its Bento, if any, out of this process's BentoML stores."""
    name, _, version = tag.partition(":")
    for store in STORES:
        if (_home() / store / name / version).is_dir():
            shutil.copytree(_home() / store / name / version, directory / store / name / version)
            (directory / store / name / "latest").write_text(version)


def adopt(directory: Path) -> None:
    """Copy what `export` wrote into this process's BentoML stores.

    Each worker has its own stores, for tests change them.
    """
    for store in STORES:
        if (directory / store).is_dir():
            shutil.copytree(directory / store, _home() / store, dirs_exist_ok=True)


def _home() -> Path:
    return Path(os.environ["BENTOML_HOME"])
