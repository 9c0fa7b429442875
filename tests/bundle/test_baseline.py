"""A baseline is taken only where its numbers fit each other."""

from typing import Any

import pytest
from pydantic import ValidationError

from bentune.bundle.baseline import Baseline


def content(**more: Any) -> dict[str, Any]:
    return {
        "rows": 8,
        "window": 100,
        "looks_a_month": 4320,
        "token_length": {"counts": [3, 5], "edges": [7], "threshold": 0.2},
        "label": {"counts": [4, 4, 0], "threshold": 0.3},
        "confidence": {"counts": [1, 2, 5], "edges": [0.5, 0.9], "threshold": 0.4},
    } | more


def test_its_features_have_the_names_of_the_metrics() -> None:
    baseline = Baseline.model_validate(content())
    assert {name: one.threshold for name, one in baseline.features.items()} == {
        "token_length": 0.2,
        "label": 0.3,
        "confidence": 0.4,
    }
    assert Baseline.model_validate_json(baseline.model_dump_json()) == baseline
    assert baseline.model_dump(mode="json") == content()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"rows": 9}, "token_length counts 8 rows, not 9"),
        ({"window": 10**9}, "window"),
        ({"window": 0}, "window"),
        ({"label": {"counts": [8], "threshold": 1}}, "label.counted.counts"),
        ({"label": {"counts": [9, -1], "threshold": 1}}, "label.counted.counts.1"),
        ({"label": {"counts": [4, 4], "threshold": 0}}, "label.counted.threshold"),
        ({"label": {"counts": [0] * 10_001, "threshold": 1}}, "label.counted.counts"),
        ({"confidence": {"counts": [4, 4], "edges": [0.5, 0.9], "threshold": 1}}, "2 edges are not those of 2 bins"),
        ({"confidence": {"counts": [4, 2, 2], "edges": [0.9, 0.5], "threshold": 1}}, "the edges do not rise"),
        ({"confidence": {"counts": [4, 4], "edges": [float("nan")], "threshold": 1}}, "confidence.binned.edges.0"),
        ({"other": 1}, "other"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why.replace(".", r"\.")):
        Baseline.model_validate(content(**wrong))
