"""The cases of the table: which ratio holds a target, and what is sent."""

import json

import numpy as np
import pytest

from benchmarks.peers.cases import BATCH, LONG, SHORT, Figure, cases
from benchmarks.peers.systems import System
from benchmarks.peers.texts import Texts
from rollout.load.generator import Load, LoadTarget

TEXTS = Texts(
    rows=["row"],
    labels=["a"],
    usual=[f"usual {n}" for n in range(200)],
    short=[f"short {n}" for n in range(10)],
    long=["long 0", "long 1"],
    mean_tokens=3.0,
)
SYSTEM = System("any", LoadTarget("http://localhost:1"), lambda texts: {"inputs": list(texts)}, list, [])
CASES = {case.name: case for case in cases(4.0)}


def sent(name: str) -> list[list[str]]:
    return [json.loads(body.content)["inputs"] for body in CASES[name].bodies(SYSTEM, TEXTS)]


@pytest.mark.parametrize(
    ("higher_is_better", "ratio", "held"),
    [(True, 5.0, True), (True, 4.99, False), (False, 5.0, True), (False, 5.01, False), (True, float("nan"), False)],
)
def test_a_target_is_held_at_least_or_at_most(higher_is_better: bool, ratio: float, held: bool) -> None:
    assert Figure("any", lambda _: 0.0, 5.0, higher_is_better).held(ratio) is held


def test_every_case_has_one_target_or_more_and_they_are_the_issue_s() -> None:
    targets = {name: [(f.name, f.target) for f in case.figures if f.target] for name, case in CASES.items()}
    assert targets == {
        "32 clients, 1 text": [("requests/s", 5.0), ("p99 ms", 0.35)],
        "1 client, 1 text": [("p50 ms", 0.6)],
        "64 clients, at most 20 tokens": [("requests/s", 3.0)],
        "32 clients, 80 % short, 20 % longest": [("short texts' p95 ms", 0.5)],
        f"1 client, lists of {BATCH}": [("texts/s", 3.0)],
    }


def test_one_in_five_is_long_in_the_mixed_case_and_groups_tell_them_apart() -> None:
    bodies = CASES["32 clients, 80 % short, 20 % longest"].bodies(SYSTEM, TEXTS)
    assert [body.group for body in bodies] == [SHORT, SHORT, SHORT, SHORT, LONG] * 2 + [SHORT] * 2
    assert sent("32 clients, 80 % short, 20 % longest")[4] == ["long 0"]


def test_lists_are_full_and_hold_every_text() -> None:
    lists = sent(f"1 client, lists of {BATCH}")
    assert [len(one) for one in lists] == [BATCH, BATCH]
    assert {text for one in lists for text in one} == set(TEXTS.usual)


def test_latencies_are_read_in_milliseconds_of_the_right_group() -> None:
    load = Load(
        started_s=np.arange(4.0),
        latency_s=np.array([0.01, 0.02, 0.03, 5.0]),
        status=np.full(4, 200),
        inputs=np.ones(4, np.int64),
        group=np.array([SHORT, SHORT, SHORT, LONG]),
        retry_after_s=np.full(4, np.nan),
        lag_s=np.zeros(4),
        seconds=2.0,
        answered=4,
        answered_inputs=4,
        cpu_s=0.0,
    )
    read = {figure.name: figure.read(load) for figure in CASES["32 clients, 80 % short, 20 % longest"].figures}
    assert read == {"short texts' p95 ms": pytest.approx(30.0), "requests/s": 2.0, "longest wait ms": 5000.0}
