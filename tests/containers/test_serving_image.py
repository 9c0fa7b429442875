"""The image of a Bento, built and run for real: hardened, sized by its limits, and gone without losing a request."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from podman import Container, run
from shared import build_bento, store_handmade

Start = Callable[..., AbstractContextManager[Container]]


@pytest.fixture(scope="module")
def container(image: str, start: Start) -> Iterator[Container]:
    with start(image) as running:
        running.until_ready()
        yield running


def test_it_answers_what_the_bundle_promises(container: Container, tiny_bundle: Path) -> None:
    golden = [json.loads(line) for line in (tiny_bundle / "golden.jsonl").read_text().splitlines()]
    labels = json.loads((tiny_bundle / "manifest.json").read_text())["labels"]
    answers = container.predict([row["text"] for row in golden]).json()
    key = container.get("/info").json()["plan"]
    for row, answer in zip(golden, answers, strict=True):
        expected = row["scores"][f"{key['variant']}/{key['provider']}"]
        found = {one["label"]: one["score"] for one in answer}
        assert [found[label] for label in labels] == pytest.approx(expected, abs=1e-3)


def test_it_runs_as_nobody_who_may_anything(container: Container) -> None:
    assert container.sh("id -u; id -g").stdout.split() == ["1034", "1034"]
    assert container.sh("touch /here").returncode != 0, "the root is read-only"
    assert container.sh("touch /home/bentoml/bento/here").returncode != 0
    assert container.sh("touch /tmp/here").returncode == 0
    status = container.sh("cat /proc/1/status").stdout
    for kind in ("CapPrm", "CapEff", "CapBnd"):
        assert f"{kind}:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status


def test_nothing_in_it_builds_or_fetches(container: Container) -> None:
    found = container.sh("command -v gcc cc make git curl wget; ls /venv/bin | grep -x -E 'pip|uv'")
    assert found.stdout == ""


def test_its_labels_say_what_it_is(image: str, tiny_bundle: Path, tiny_tag: str) -> None:
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    labels = json.loads(run("podman", "inspect", image).stdout)[0]["Labels"]
    assert labels["org.opencontainers.image.title"] == manifest["name"]
    assert labels["org.opencontainers.image.version"] == manifest["version"]
    assert labels["org.opencontainers.image.revision"] == "f00"
    assert labels["bentune.bento"] == tiny_tag
    assert len(labels["bentune.digest"]) == 64


def test_the_image_says_its_user_in_numbers_and_how_it_is_stopped(image: str) -> None:
    """Kubernetes refuses a name where runAsNonRoot is set: it cannot tell whose it is."""
    config = json.loads(run("podman", "inspect", image).stdout)[0]["Config"]
    assert (config["User"], config["StopSignal"]) == ("1034:1034", "SIGTERM")


@pytest.mark.parametrize("cpus", [1, 2])
def test_slots_follow_the_cpu_quota(image: str, start: Start, cpus: int) -> None:
    with start(image, cpus=cpus) as running:
        running.until_ready()
        plan = running.get("/info").json()["plan"]
        assert plan["slots"] * plan["threads"] == cpus


def test_too_little_memory_is_said_and_not_found_out(image: str, start: Start) -> None:
    with start(image, memory="160m") as running:
        deadline = time.monotonic() + 60
        while running.state()["Running"] and time.monotonic() < deadline:
            time.sleep(0.1)
        state = running.state()
        assert (state["ExitCode"], state["OOMKilled"]) == (1, False)
        assert "the memory limit is 168 MB, and serving" in running.logs()


def test_a_stop_under_load_loses_no_request(image: str, start: Start) -> None:
    with start(image) as running:
        running.until_ready()
        body = {"inputs": ["a cat near the dog", "bread and cheese with some hammer"] * 50}
        answers: list[tuple[float, int]] = []
        told = threading.Event()

        def client() -> None:
            with httpx.Client(timeout=60) as http:
                while not told.is_set():
                    sent = time.monotonic()
                    try:
                        status = http.post(f"{running.url}/predict", json=body).status_code
                    except httpx.TransportError:
                        status = 0
                    answers.append((sent, status))

        clients = [threading.Thread(target=client) for _ in range(8)]
        for one in clients:
            one.start()
        time.sleep(2)
        stopped = time.monotonic()
        told.set()
        assert running.stop() == 0
        for one in clients:
            one.join()
        before = [status for sent, status in answers if sent < stopped]
        assert len(before) > 16
        assert set(before) == {200}, "what was accepted is answered"


def test_buildah_builds_the_same(image: str, build: Callable[..., str], start: Start, tiny_tag: str) -> None:
    """Buildah's image has the same packages, Bento and model.

    The image is built of the layers that are there already, and podman runs it.
    """
    built = build(tiny_tag, "--engine", "buildah", "--name", "bentune/by-buildah:test")
    layers = [json.loads(run("podman", "inspect", name).stdout)[0]["RootFS"]["Layers"] for name in (image, built)]
    assert layers[0][:-2] == layers[1][:-2]
    assert len(layers[0]) == len(layers[1])
    with start(built) as running:
        running.until_ready()
        assert running.predict("a cat near the dog").json()[0]["label"] == "animal"


def test_another_version_ships_its_weights_and_little_else(
    image: str, build: Callable[..., str], tmp_path: Path
) -> None:
    """Layers of packages and the system are the same ones, so that a node has them."""
    other = store_handmade("other")
    tag = f"other:{other.name}"
    build_bento(tag, tmp_path)
    second = build(tag)
    first_layers, second_layers = (
        json.loads(run("podman", "inspect", name).stdout)[0]["RootFS"]["Layers"] for name in (image, second)
    )
    assert second_layers[:-2] == first_layers[:-2], "the base, the folders, the packages"
    assert not set(second_layers[-2:]) & set(first_layers[-2:]), "the Bento, and the model"
    new = sum(layer_bytes(second)[-2:])
    model = sum(file.stat().st_size for file in other.rglob("*"))
    assert new < model + 1_000_000
    assert sum(layer_bytes(second)) < 420_000_000 + new


def layer_bytes(image: str) -> list[int]:
    """Sizes of the layers, the base first; steps that only set something have none."""
    steps = json.loads(run("podman", "history", "--format", "json", image).stdout)
    return [int(step["size"]) for step in reversed(steps) if step["size"]]


def test_a_server_and_a_model_that_are_images_of_their_own_serve_together(
    build: Callable[..., str], start: Start, tiny_tag: str, tmp_path: Path
) -> None:
    """A container of the model's image copies the model to where the server looks.

    The component `model-image` does so with an init container.
    """
    server, model = build(tiny_tag, "--only", "server"), build(tiny_tag, "--only", "model")
    store = tmp_path / "models"
    store.mkdir()
    os.chown(store, 1034, 1034)
    run("podman", "run", "--rm", "--volume", f"{store}:/copied", model, "cp", "-R", "/models/.", "/copied/")
    with start(server, options=["--volume", f"{store}:/home/bentoml/models:ro"]) as running:
        running.until_ready()
        assert running.predict("a cat near the dog").json()[0]["label"] == "animal"
    assert run("podman", "run", "--rm", "--entrypoint", "ls", server, "/home/bentoml/models").stdout == ""
