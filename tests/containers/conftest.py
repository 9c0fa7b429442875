"""Fixtures of the container tests: podman with a base image of Debian's packages, images, and containers of them."""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from podman import Container, run

from bentune.bundle.lock import locked
from rollout.server.server import free_port

HERE = Path(__file__).parent
TOOLS = ("podman", "buildah", "runc", "mmdebstrap")
# Kept from one run of the tests to the next: making the base image takes most of a minute.
KEPT = Path(os.environ.get("BENTUNE_TEST_CONTAINERS", Path.home() / ".cache/bentune-test-containers"))


@pytest.fixture(scope="session")
def podman() -> None:
    """Podman with an image python:3.11-slim, set up through the environment."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        reason = f"container tests need {', '.join(missing) or 'root'}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    KEPT.mkdir(parents=True, exist_ok=True)
    with locked(KEPT / "lock"):  # two test processes may want it at once
        run("bash", str(HERE / "base_image.sh"), str(KEPT))
    os.environ["CONTAINERS_CONF"] = str(KEPT / "containers.conf")
    os.environ["CONTAINERS_STORAGE_CONF"] = str(KEPT / "storage.conf")


@pytest.fixture(scope="session")
def build(podman: None) -> Iterator[Callable[..., str]]:
    """Builds the image of a Bento with `bentune image`, and returns its name."""
    built: list[str] = []

    def call(tag: str, *more: str) -> str:
        command = [
            sys.executable,
            "-m",
            "bentune",
            "image",
            tag,
            "--engine",
            "podman",
            "--revision",
            "f00",
            "--json",
            *more,
        ]
        built.append(json.loads(run(*command).stdout)["image"])
        return built[-1]

    yield call
    for name in built:
        run("podman", "rmi", "--force", name, check=False)


@pytest.fixture(scope="session")
def image(build: Callable[..., str], tiny_tag: str) -> str:
    return build(tiny_tag)


@pytest.fixture(scope="session")
def start(podman: None) -> Callable[..., AbstractContextManager[Container]]:
    """Return a function that starts an image as a hardened pod would.

    The container is read-only, without capabilities, and has a small /tmp.
    """

    @contextmanager
    def call(image: str, *, cpus: float = 1, memory: str = "1g", options: Sequence[str] = ()) -> Iterator[Container]:
        port, name = free_port(), f"bentune-test-{time.monotonic_ns()}"
        hardened = ["--read-only", "--tmpfs", "/tmp:size=64m", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
        limits = [f"--cpus={cpus}", f"--memory={memory}", f"--memory-swap={memory}", "--pids-limit=128"]
        # The network is the host's, so each needs a port of its own.
        arguments = ["--port", str(port)]
        run("podman", "run", "--detach", "--name", name, *hardened, *limits, *options, image, *arguments)
        try:
            yield Container(name, f"http://127.0.0.1:{port}")
        finally:
            run("podman", "rm", "--force", "--time", "1", name, check=False)

    return call
