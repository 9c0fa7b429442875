"""An objective is read as people write it, and nothing else is taken for one."""

import pytest

from bentune.bundle.errors import InputError
from rollout.load.latency import Latency
from rollout.load.slo import Objective, parse_objective


@pytest.mark.parametrize(
    ("text", "percentile", "limit_ms"),
    [
        ("p99=200ms", "p99", 200.0),
        ("p50=0.5s", "p50", 500.0),
        ("p99.9=1.25ms", "p99.9", 1.25),
        (" p90=1s ", "p90", 1000.0),
    ],
)
def test_it_is_read(text: str, percentile: str, limit_ms: float) -> None:
    objective = parse_objective(text)
    assert objective == Objective(percentile=percentile, limit_ms=limit_ms)
    assert parse_objective(str(objective)) == objective


@pytest.mark.parametrize(
    "text", ["", "p99", "p95=1s", "p99=200", "p99=-1ms", "p99=0ms", "p99 = 1 s", "p99=1e3ms", "p99x9=1s", "p99=nanms"]
)
def test_anything_else_is_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(InputError, match=r"write p50, p90, p99 or p99.9.*as in p99=200ms"):
        parse_objective(text)


def test_without_answers_it_is_not_held() -> None:
    nothing = Latency(p50=None, p90=None, p99=None, p99_9=None, max=None, answers=0)
    objective = parse_objective("p99.9=1s")
    assert not objective.held(nothing)
    assert objective.held(nothing.model_copy(update={"p99_9": 1000.0}))
    assert not objective.held(nothing.model_copy(update={"p99_9": 1000.1, "p99": 1.0}))
