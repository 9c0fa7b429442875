"""Fixtures of tests of releases: releases to a stand-in cluster, and a Service that answers as the pods."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import http_server
import pytest
from cluster import Cluster
from releasing import Behind, Heard, image_of, version

from bentune.bundle.manifest import Bundle
from rollout.release.apply import ReleaseOutcome
from rollout.release.kubectl import Kubectl
from rollout.release.options import ReleaseOptions
from rollout.release.release import release, rollback
from rollout.release.target import OverlayTarget


@dataclass
class Releasing:
    """Releases to the stand-in cluster, and what there is to look at afterwards."""

    cluster: Cluster
    overlay: Path
    behind: Behind
    options: ReleaseOptions
    make: Callable[..., Bundle]

    def version(self, name: str, after: Bundle | None = None) -> Bundle:
        made = self.make(name, after)
        self.behind.knows(made)
        return made

    def target(self) -> OverlayTarget:
        return OverlayTarget(self.overlay, Kubectl())

    def release(self, bundle: Bundle, **options: str | bool) -> ReleaseOutcome:
        return release(self.target(), bundle, image_of(bundle), self.options, **options)

    def rollback(self) -> ReleaseOutcome:
        return rollback(self.target(), self.options)


@pytest.fixture
def direct_reads(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read from the stand-in cluster without the program.

    The program takes 60 ms for each of a test's hundred reads. Rendering, applying and patching are kubectl's. Some
    tests of tests/rollout/release/test_release.py, and those of tests/commands, also read with it.
    """
    monkeypatch.setattr(Kubectl, "where", lambda _: ("test", "default"))
    monkeypatch.setattr(Kubectl, "answers", lambda _: True)
    monkeypatch.setattr(Kubectl, "diff", lambda *_: None)
    monkeypatch.setattr(Kubectl, "get", lambda _, kind, name: cluster.read(kind, name))
    monkeypatch.setattr(Kubectl, "having", lambda _, kind, labels: cluster.read(kind, labels=labels)["items"])


@pytest.fixture
def releasing(
    cluster: Cluster, direct_reads: None, overlay: Path, tiny_bundle: Path, tmp_path: Path
) -> Iterator[Releasing]:
    """A minute passes with each look at the clock."""
    behind, ticks = Behind(cluster), itertools.count(step=60.0)

    def make(name: str, after: Bundle | None) -> Bundle:
        return version(tiny_bundle, tmp_path / "versions", name, after)

    with http_server.serving(behind) as url:
        record = tmp_path / "releases.jsonl"
        options = ReleaseOptions(Heard(), 600, url, record, lambda: next(ticks), lambda _: None)
        yield Releasing(cluster, overlay, behind, options, make)
