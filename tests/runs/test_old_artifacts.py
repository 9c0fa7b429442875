"""Bundles and runs of an earlier Bentune are as good as ever: tests/fixtures/README.md says how they were made."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import bentoml
import prometheus_client
import pytest
from command import ask
from starlette.requests import Request
from tiny import ANY, sentences, tagged, write_csv, write_tagged

from bentune.bundle.manifest import Bundle, open_bundle
from bentune.bundle.store import find_bundle, model_store
from service.app import Application
from service.http.requests import Incoming
from service.settings import Settings
from training.pipeline.run_dir import RunDir

KINDS = {"one-label": "old-one", "many-labels": "old-many"}


@dataclass(frozen=True)
class Old:
    """A copy to work with: the working directory holds the recipe, its rows and its model; the bundle is stored."""

    kind: str
    name: str
    tag: str
    runs: Path

    def brought(self, what: str) -> Path:
        """Put a run where `--runs` finds it.

        `run` was finished, and `interrupted` ended in the middle of training.
        """
        (root,) = Path(what).iterdir()
        found = Path(shutil.copytree(root, self.runs / self.name / root.name))
        if what == "run":
            # The plan chose no variant beside fp32, and git keeps no empty directory.
            (found / "plan/model").mkdir(exist_ok=True)
        return found

    def new_rows(self, count: int, seed: int) -> Path:
        if self.kind == "one-label":
            return write_csv(Path("new.csv"), sentences(count, seed))
        return write_tagged(Path("new.jsonl"), tagged(count, seed))

    @property
    def bundle(self) -> Bundle:
        return find_bundle(self.tag)


@pytest.fixture(params=KINDS)
def old(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Old]:
    kind, name = request.param, KINDS[request.param]
    monkeypatch.chdir(shutil.copytree(Path(__file__).parent.parent / "fixtures/old" / kind, tmp_path / kind))
    manifest = open_bundle(Path("bundle")).manifest
    shutil.copytree("bundle", model_store() / name / manifest.version)
    yield Old(kind, name, f"{name}:{manifest.version}", tmp_path / "runs")
    shutil.rmtree(model_store() / name)
    for bento in bentoml.bentos.list(name) if any(bento.tag.name == name for bento in bentoml.bentos.list()) else []:
        bentoml.bentos.delete(bento.tag)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = prometheus_client.CollectorRegistry()
    for kind in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(prometheus_client, kind, partial(getattr(prometheus_client, kind), registry=fresh))


def incoming(body: dict[str, Any]) -> Incoming:
    """A request from a client that waits for its answer."""
    pieces = iter([{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}])

    async def receive() -> dict[str, Any]:
        if (piece := next(pieces, None)) is None:
            await asyncio.Event().wait()
        return piece or {}

    return Incoming(Request({"type": "http", "method": "POST", "path": "/predict", "headers": []}, receive))


@pytest.mark.usefixtures("registry")
def test_the_bundle_opens_proves_itself_and_answers_as_it_did(old: Old) -> None:
    bundle = old.bundle
    if old.kind == "one-label":
        made = json.loads((old.brought("run") / "package/artifacts.json").read_text())
        assert (bundle.tag, bundle.content, bundle.digest) == (made["model"], made["content"], made["digest"])
    assert bundle.evidence()["recipe"]["name"] == bundle.recipe()["name"] == old.name
    assert bundle.verdicts() == []
    assert bundle.rows().trained.rows > 80
    found: dict[str, Any] = {}

    async def serve() -> None:
        application = Application(bundle, Settings())
        application.start()
        found["info"] = application.info()
        texts = [row.text for row in bundle.golden]
        found["answers"] = json.loads((await application.answer(incoming({"inputs": texts, "truncate": True}))).body)
        await application.stop()

    asyncio.run(serve())
    # Ready: the golden rows gave on the engine what they gave when they were written.
    assert found["info"]["ready"]
    assert found["info"]["golden"]["rows"] == len(bundle.golden) == 6
    for row, answer in zip(bundle.golden, found["answers"], strict=True):
        (scores,) = row.scores.values()
        expected = dict(zip(bundle.manifest.labels, scores, strict=True))
        assert {one["label"]: one["score"] for one in answer} == pytest.approx(expected, abs=row.tolerance)


def test_the_bundle_is_compared_with_itself(old: Old) -> None:
    rows = old.new_rows(60, seed=5)
    answer = ask("compare", old.tag, old.tag, "--data", rows, "--json")
    assert answer.json["verdict"]["decision"] == "PROMOTE", answer.err
    assert [verdict.decision for verdict in old.bundle.verdicts()] == ["PROMOTE"]


def test_a_run_goes_on_or_is_done_again(old: Old) -> None:
    """A finished run is done again, and an interrupted one goes on.

    The finished run has rows with one label, and the interrupted run has rows with any number of labels.
    """
    root = old.brought("run" if old.kind == "one-label" else "interrupted")
    answer = ask("run", "recipe.yaml", "--runs", old.runs, "--json", *ANY)
    assert answer.code == 0, answer.err
    assert list((old.runs / old.name).iterdir()) == [root]
    stages = {stage["stage"]: stage for stage in answer.json["stages"]}
    assert stages.keys() >= {"data", "train", "merge", "evaluate", "export", "verify", "plan", "package"}
    for name in stages:
        record = RunDir(root).record(name)
        assert record is not None
        assert RunDir(root).intact(record)
    new = find_bundle(stages["package"]["summary"]["model"])
    assert new.manifest.version > old.bundle.manifest.version
    assert new.manifest.labels == old.bundle.manifest.labels


def test_the_bundle_is_continued_and_compared_with_what_continues_it(old: Old) -> None:
    """An old bundle is continued, and compared with its continuation.

    It is warm where the rows have one label, from the weights in the old run. It is cold where they have any number.
    """
    source = [old.bundle.recipe()["data"]["source"], str(old.new_rows(60, seed=5))]
    given = ("retrain", "recipe.yaml", "--from", old.tag, "--runs", old.runs, "--json")
    warm = ("--warm-start",) if old.kind == "one-label" else ()
    if warm:
        old.brought("run")
    answer = ask(*given, *warm, "--set", f"data.source={json.dumps(source)}", "--set", "train.epochs=4", *ANY)
    assert answer.code in {0, 1}, answer.err
    assert answer.json["verdict"]["served"]["tag"] == old.tag
    child = find_bundle(answer.json["model"])
    assert child.manifest.parent is not None
    assert (child.manifest.parent.tag, child.manifest.parent.content) == (old.tag, old.bundle.content)
    assert child.manifest.version > old.bundle.manifest.version
    assert child.evidence()["data"]["parent"]["reference"] > 0
    assert child.evidence()["data"]["parent"]["missing"] == 0
