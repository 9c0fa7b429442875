"""Servers under measurement, all started at once; idle ones are suspended."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.peers.peers import PEERS, Peer
from benchmarks.peers.peers import running as peer_running
from rollout.load.generator import Body, LoadTarget
from rollout.server.server import running as bento_running

OURS = "bentune"
TIMEOUT_S = 120.0


@dataclass(frozen=True)
class System:
    """One server: its address, the formats of its requests and answers, and its processes."""

    name: str
    target: LoadTarget
    spell: Callable[[Sequence[str]], dict[str, Any]]
    labels: Callable[[Any], list[str]]
    family: list[psutil.Process]

    def body(self, texts: Sequence[str], group: str = "") -> Body:
        """Return a request with these texts."""
        return Body(json.dumps(self.spell(texts)).encode(), len(texts), group)

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """Resume the server for the block, and suspend it again.

        An idle server that polls would take CPU time.
        """
        for process in self.family:
            process.resume()
        try:
            yield
        finally:
            for process in self.family:
                process.suspend()

    def rss_mb(self) -> float:
        """Return the resident memory in MB of the largest process, which has the model."""
        largest: int = max(process.memory_info().rss for process in self.family)
        return largest / 1e6


def start_ours(stack: contextlib.ExitStack, tag: str) -> System:
    """Serve the Bento."""
    before = set(psutil.Process().children(recursive=True))
    url = stack.enter_context(bento_running(tag))
    return _entered(
        stack,
        System(
            OURS,
            LoadTarget(url, "/predict", TIMEOUT_S),
            lambda texts: {"inputs": list(texts), "truncate": True},
            lambda answer: [row[0]["label"] for row in answer],
            _family(before),
        ),
    )


def start_peer(stack: contextlib.ExitStack, peer: Peer, model: Path, max_tokens: int) -> System:
    """Serve the same weights with a peer."""
    before = set(psutil.Process().children(recursive=True))
    url = stack.enter_context(peer_running(peer, model, max_tokens))
    target = LoadTarget(url.removesuffix(peer.path), peer.path, TIMEOUT_S)
    return _entered(stack, System(peer.name, target, peer.body, peer.labels, _family(before)))


def peers_of(names: Sequence[str]) -> list[Peer]:
    """Return the peers of these names, in the order of PEERS."""
    return [peer for peer in PEERS if peer.name in names]


def _family(before: set[psutil.Process]) -> list[psutil.Process]:
    return [process for process in psutil.Process().children(recursive=True) if process not in before]


def _entered(stack: contextlib.ExitStack, system: System) -> System:
    """Suspend a server until its turn, and resume it before it is stopped."""
    for process in system.family:
        process.suspend()

    def resume() -> None:
        for process in system.family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    stack.callback(resume)
    return system
