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
from properties import load_profile
from shared import adopt, adopt_run, build_bento, once, place_of, run_in, run_recipe, store_handmade
from tiny import make_model, sentences, tagged, write_csv, write_recipe, write_tagged
from tiny_images import image_recipe, make_image_model, write_images

HERE = Path(__file__).parent
K8S = HERE.parent / "k8s"
# BentoML reads this when it is first imported: the tests never touch the user's stores.
_HOME = tempfile.mkdtemp(prefix="bentune-tests-")
os.environ |= {"BENTOML_HOME": _HOME, "BENTOML_DO_NOT_TRACK": "true", "HF_HOME": f"{_HOME}/hf"}
# Threads that spin while they wait make two processes on two cores ten times slower than one. Where processes share the
# cores, a second thread in each is of no use.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
load_profile()


# Modules that take longest, the longest first: so no worker is left alone with one of them at the end. The training
# image comes after them, for it is still being built while they run.
LONGEST = (
    "runs/test_retrain_and_roll_out",
    "k8s/test_prometheus",
    "containers/test_serving_image",
    "runs/test_end_to_end",
    "k8s/test_canary",
    "commands/test_retrain",
    "training/pipeline/test_workers",
    "training/test_interrupted",
    "containers/test_training_image",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the longest modules to the front; the others keep their order."""
    modules = [item.path.relative_to(HERE).with_suffix("").as_posix() for item in items]
    rank = {module: number for number, module in enumerate(LONGEST)}
    order = sorted(range(len(items)), key=lambda number: (rank.get(modules[number], len(LONGEST)), number))
    items[:] = [items[number] for number in order]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of what is built once for all workers."""
    return place_of(tmp_path_factory)


@pytest.fixture(scope="session")
def tiny_model(shared: Path) -> Path:
    return once(shared / "model", lambda place: make_model(place / "tiny-bert")) / "tiny-bert"


@pytest.fixture(scope="session")
def tiny_csv(shared: Path) -> Path:
    return once(shared / "data", lambda place: write_csv(place / "rows.csv", sentences(300))) / "rows.csv"


@pytest.fixture(scope="session")
def tiny_recipe(shared: Path, tiny_model: Path, tiny_csv: Path) -> Path:
    return once(shared / "recipe", lambda place: write_recipe(place / "tiny.yaml", tiny_model, tiny_csv)) / "tiny.yaml"


@pytest.fixture(scope="session")
def tiny_run(shared: Path, tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Path:
    """Return the directory of a run of the tiny recipe with every stage done.

    Treat it as read-only: copy it to change it.
    """
    built = once(shared / "run", lambda place: run_recipe(tiny_recipe, place))
    return adopt_run(built, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def tagged_run(shared: Path, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The same, every stage done, where rows have any number of labels."""

    def build(place: Path) -> None:
        rows = write_tagged(place / "rows.jsonl", tagged(320))
        data = {"source": str(rows), "multi_label": True, "split": {"test": 0.2, "validation": 0.1}}
        train = {"epochs": 16, "learning_rate": 0.006, "checkpoint_steps": 400}
        calibrate = {"temperature": True}
        recipe = place / "tagged.yaml"
        run_recipe(write_recipe(recipe, tiny_model, rows, data=data, train=train, calibrate=calibrate), place)

    return adopt_run(once(shared / "tagged", build), tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def trained_tag(tiny_run: Path) -> str:
    """Tag of the stored bundle, and of the Bento, that the tiny run made."""
    artifacts: dict[str, str] = json.loads((tiny_run / "package/artifacts.json").read_text())
    return artifacts["model"]


@pytest.fixture(scope="session")
def trained_bundle(tiny_run: Path) -> Path:
    """Return the directory of the tiny run's stored bundle.

    Treat it as read-only: copy it to change it.
    """
    return Path(json.loads((tiny_run / "package/artifacts.json").read_text())["bundle"])


@pytest.fixture(scope="session")
def tiny_bundle() -> Path:
    """Return the directory of a stored bundle that no training made.

    It is right about the tiny rows. Treat it as read-only.
    """
    return store_handmade()


@pytest.fixture(scope="session")
def tiny_tag(shared: Path, tiny_bundle: Path) -> str:
    """Tag of that bundle, and of a Bento of it."""
    tag = f"{tiny_bundle.parent.name}:{tiny_bundle.name}"
    adopt(once(shared / "bento", lambda place: build_bento(tag, place)))
    return tag


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
def image_model(shared: Path) -> Path:
    return once(shared / "image-model", lambda place: make_image_model(place / "tiny-vit")) / "tiny-vit"


@pytest.fixture(scope="session")
def image_folder(shared: Path) -> Path:
    return once(shared / "images", lambda place: write_images(place / "images")) / "images"


@pytest.fixture(scope="session")
def image_recipe_file(shared: Path, image_model: Path, image_folder: Path) -> Path:
    place = once(shared / "image-recipe", lambda at: image_recipe(at / "images.yaml", image_model, image_folder))
    return place / "images.yaml"


@pytest.fixture(scope="session")
def image_run(shared: Path, image_recipe_file: Path) -> Path:
    """Return the directory of a run on images with every stage done but `package`.

    Treat it as read-only.
    """
    return run_in(once(shared / "image-run", lambda place: run_recipe(image_recipe_file, place, package=False)))


@pytest.fixture(scope="session")
def image_bundle(shared: Path, image_recipe_file: Path, image_run: Path) -> Path:
    """Return a bundle of the image run, as the package stage fills it.

    It lies outside any store. Treat it as read-only.
    """
    from tiny_images import bundle_of

    build = lambda place: bundle_of(image_recipe_file, image_run, place / "bundle")  # noqa: E731
    return once(shared / "image-bundle", build) / "bundle"
