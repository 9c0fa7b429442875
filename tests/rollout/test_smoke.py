"""The smoke test asks a real server, and believes only the scores that the bundle holds."""

from dataclasses import replace
from typing import Any

import pytest

from bentune.bundle.errors import BentuneError
from bentune.bundle.store import find_bundle
from rollout import smoke as module
from rollout.smoke import smoke


class Lines:
    def __init__(self) -> None:
        self.said: list[Any] = []

    def say(self, renderable: Any) -> None:
        self.said.append(renderable)


def test_it_classifies_held_out_rows_and_shows_info_and_metrics(tiny_tag: str) -> None:
    report = Lines()
    found = smoke(tiny_tag, 3, report)
    bundle = find_bundle(tiny_tag)
    assert [answer[0]["label"] for answer in found["answers"]] == [row.label for row in bundle.golden[:3]]
    assert found["info"]["digest"] == bundle.digest
    assert sum(float(line.split()[-1]) for line in found["metrics"] if "predictions_total" in line) == 3
    assert report.said[-1].endswith(f"Serve it again: bentune serve {tiny_tag}")


def test_other_scores_than_the_bundles_fail(tiny_tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = find_bundle(tiny_tag)
    wrong = [
        row.model_copy(update={"scores": {key: scores[::-1] for key, scores in row.scores.items()}})
        for row in bundle.golden
    ]
    monkeypatch.setattr(module, "find_bundle", lambda tag: replace(bundle, golden=wrong))
    with pytest.raises(BentuneError, match=r"the golden rows \[0.*\] got other scores"):
        smoke(tiny_tag, 3, Lines())
