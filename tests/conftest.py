"""Fixtures that many tests share: the tiny model, its rows, one finished run on them, and a stand-in for a cluster."""

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, serving
from programs import require
from tiny import Quiet, make_model, sentences, tagged, write_csv, write_recipe, write_tagged
from tiny_images import image_recipe, make_image_model, write_images

K8S = Path(__file__).parent.parent / "k8s"
# BentoML reads this when it is first imported: the tests never touch the user's stores.
_HOME = tempfile.mkdtemp(prefix="bentune-tests-")
os.environ |= {"BENTOML_HOME": _HOME, "BENTOML_DO_NOT_TRACK": "true", "HF_HOME": f"{_HOME}/hf"}
# Threads that spin while they wait make two processes on two cores ten times slower than one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "tiny-bert")


@pytest.fixture(scope="session")
def tiny_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("data") / "rows.csv", sentences(300))


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_csv: Path) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipe") / "tiny.yaml", tiny_model, tiny_csv)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Path:
    """Directory of a run of the tiny recipe with every stage done; treat it as read-only (copy it to change it)."""
    from training.pipeline.pipeline import run_all
    from training.pipeline.run_dir import RunDir
    from training.recipe.file import load_recipe

    recipe = load_recipe(tiny_recipe).recipe
    with RunDir.open(tmp_path_factory.mktemp("runs"), recipe.name) as run:
        list(run_all(recipe, run, Quiet()))
        return run.root


@pytest.fixture(scope="session")
def tagged_run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The same, every stage done, where rows have any number of labels."""
    from training.pipeline.pipeline import run_all
    from training.pipeline.run_dir import RunDir
    from training.recipe.file import load_recipe

    directory = tmp_path_factory.mktemp("tagged")
    rows = write_tagged(directory / "rows.jsonl", tagged(320))
    data = {"source": str(rows), "multi_label": True, "split": {"test": 0.2, "validation": 0.1}}
    train = {"epochs": 16, "learning_rate": 0.006, "checkpoint_steps": 400}
    path = write_recipe(
        directory / "tagged.yaml", tiny_model, rows, data=data, train=train, calibrate={"temperature": True}
    )
    recipe = load_recipe(path).recipe
    with RunDir.open(tmp_path_factory.mktemp("runs"), recipe.name) as run:
        list(run_all(recipe, run, Quiet()))
        return run.root


@pytest.fixture(scope="session")
def tiny_tag(tiny_run: Path) -> str:
    """Tag of the stored bundle, and of the Bento, that the tiny run made."""
    artifacts: dict[str, str] = json.loads((tiny_run / "package/artifacts.json").read_text())
    return artifacts["model"]


@pytest.fixture(scope="session")
def tiny_bundle(tiny_run: Path) -> Path:
    """Directory of the stored bundle; treat it as read-only (copy it to change it)."""
    return Path(json.loads((tiny_run / "package/artifacts.json").read_text())["bundle"])


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A stand-in for a cluster, which the real kubectl talks to."""
    require("kubectl")
    found = Cluster()
    with serving(found, tmp_path) as config:
        monkeypatch.setenv("KUBECONFIG", str(config))
        monkeypatch.setenv("HOME", str(tmp_path))
        yield found


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    """A copy of the overlay `dev`, to write to."""
    shutil.copytree(K8S, tmp_path / "k8s")
    return tmp_path / "k8s/overlays/dev"


@pytest.fixture(scope="session")
def image_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image_model(tmp_path_factory.mktemp("image-model") / "tiny-vit")


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "images")


@pytest.fixture(scope="session")
def image_recipe_file(tmp_path_factory: pytest.TempPathFactory, image_model: Path, image_folder: Path) -> Path:
    return image_recipe(tmp_path_factory.mktemp("image-recipe") / "images.yaml", image_model, image_folder)


@pytest.fixture(scope="session")
def image_run(tmp_path_factory: pytest.TempPathFactory, image_recipe_file: Path) -> Path:
    """Directory of a run on images with every stage done but `package`; treat it as read-only."""
    from training.pipeline.pipeline import run_stage, stages_of
    from training.pipeline.run_dir import RunDir
    from training.recipe.file import load_recipe

    recipe = load_recipe(image_recipe_file).recipe
    with RunDir.open(tmp_path_factory.mktemp("image-runs"), recipe.name) as run:
        for stage in stages_of(recipe)[:-1]:
            run_stage(stage.name, recipe, run, Quiet())
        return run.root


@pytest.fixture(scope="session")
def image_bundle(tmp_path_factory: pytest.TempPathFactory, image_recipe_file: Path, image_run: Path) -> Path:
    """A bundle of the image run, as the package stage fills it, outside any store; treat it as read-only."""
    from tiny_images import bundle_of

    return bundle_of(image_recipe_file, image_run, tmp_path_factory.mktemp("image-bundle") / "bundle")
