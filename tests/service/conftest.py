"""Fixtures of the service's tests: fresh metrics, bundles changed from the tiny one, and servers of them."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from served import Server, own_home, slow, started, storing


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> prometheus_client.CollectorRegistry:
    """Give the metrics of this test a registry of their own.

    The process's own registry takes each name only once.
    """
    fresh = prometheus_client.CollectorRegistry()
    for kind in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(prometheus_client, kind, partial(getattr(prometheus_client, kind), registry=fresh))
    return fresh


LIMITS = {
    "BENTUNE_MAX_INPUTS": "8",
    "BENTUNE_MAX_BODY_BYTES": "16384",
    "BENTUNE_REQUEST_TIMEOUT_MS": "20000",
    "BENTUNE_ACCESS_LOG": "1",  # a test reads it
}


@pytest.fixture(scope="session")
def server(tiny_tag: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The tiny Bento, served with LIMITS to all tests that leave it as it was."""
    from rollout.server.server import running

    directory = tmp_path_factory.mktemp("server")
    env, log = LIMITS | own_home(directory), directory / "log"
    with running(tiny_tag, env=env, log=log, cwd=directory) as url:
        shared = Server(url, log)
        yield shared
        shared.client.close()


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., contextlib.AbstractContextManager[Server]]:
    """Return a function that starts a server for as long as its context lasts.

    The server is of `what`, a Bento's tag or ".". It need not become ready.
    """

    def start(what: str, *arguments: str, **more: Any) -> contextlib.AbstractContextManager[Server]:
        return started(tmp_path_factory.mktemp("server"), what, *arguments, **more)

    return start


@pytest.fixture
def store_bundle(tiny_bundle: Path) -> Iterator[Callable[..., str]]:
    """Bundles of one test."""
    with storing(tiny_bundle) as store:
        yield store


@pytest.fixture(scope="module")
def share_bundle(tiny_bundle: Path) -> Iterator[Callable[..., str]]:
    """Bundles of all tests of a module."""
    with storing(tiny_bundle) as store:
        yield store


@pytest.fixture(scope="module")
def slow_tag(share_bundle: Callable[..., str]) -> str:
    return share_bundle("slow", slow)
