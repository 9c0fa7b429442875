"""One hop of the parity chain: what is measured, and each reason to say no."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from bentune.bundle.targets.many_labels import ManyLabels
from bentune.bundle.targets.one_label import OneLabel
from training.prove.parity import Stop, compare, hop_table
from training.tasks.digest import digest

TARGET = OneLabel(labels=["bad", "good"])

BEFORE = Stop(
    "trained",
    np.array([[1, 2], [3, 1], [0, 5]], dtype=np.float32),
    [[1, 2], [3], [4]],
    ["bad", "good"],
    "tokenizer",
    [[5], [6]],
)


def after(**changes: Any) -> Stop:
    return replace(BEFORE, **{"name": "merged", **changes})


def shifted(*differences: float) -> Any:
    """Add a difference to the first logit of each row."""
    logits = BEFORE.logits.copy()
    logits[:, 0] += np.array(differences, dtype=np.float32)
    return logits


def test_equal_stops_pass_and_are_recorded() -> None:
    hop = compare("merge", BEFORE, after(), tolerance=1e-3, flips_allowed=0, target=TARGET)
    assert hop.problems == []
    assert (hop.hop, hop.before, hop.after, hop.rows) == ("merge", "trained", "merged", 3)
    assert (hop.largest_difference, hop.mean_difference, hop.label_flips) == (0, 0, 0)
    assert hop.label_digest == digest(["bad", "good"])
    assert hop.token_digest == digest([[1, 2], [3], [4]])
    assert hop.tokenizer_digest == "tokenizer"


def test_differences_are_measured() -> None:
    hop = compare("merge", BEFORE, after(logits=shifted(0.25, -0.5, 0)), tolerance=0.5, flips_allowed=0, target=TARGET)
    assert hop.problems == []
    assert hop.largest_difference == 0.5
    assert hop.mean_difference == pytest.approx(0.75 / 6)


@pytest.mark.parametrize(
    ("stop", "problem"),
    [
        (after(logits=shifted(0.25, -0.5, 0)), "the largest logit difference is 0.5, the tolerance 0.4"),
        (after(labels=["good", "bad"]), "the label map changed from ['bad', 'good'] to ['good', 'bad']"),
        (after(token_ids=[[1, 2], [9], [4]]), "the tokenizer gives other tokens for 1 of 3 rows"),
        (
            after(probe_ids=[[5], [7]]),
            "the tokenizer gives other tokens for 1 of 2 made-up texts with blanks, line ends, accents or special "
            "tokens, though these rows have the same",
        ),
        (after(tokenizer_digest="other"), "the tokenizer has changed, though these rows have the same tokens"),
    ],
)
def test_each_reason_alone(stop: Stop, problem: str) -> None:
    assert compare("merge", BEFORE, stop, tolerance=0.4, flips_allowed=0, target=TARGET).problems == [problem]


def test_flips_are_counted_and_may_be_allowed() -> None:
    stop = after(logits=shifted(1.5, 0, 0))
    assert compare("x", BEFORE, stop, tolerance=2, flips_allowed=0, target=TARGET).problems == [
        "1 labels changed, 0 allowed"
    ]
    assert compare("x", BEFORE, stop, tolerance=2, flips_allowed=1, target=TARGET).problems == []
    assert compare("x", BEFORE, stop, tolerance=2, flips_allowed=1, target=TARGET).label_flips == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_not_finite_is_never_in_bounds(bad: float) -> None:
    hop = compare("x", BEFORE, after(logits=shifted(bad, 0, 0)), tolerance=1e9, flips_allowed=3, target=TARGET)
    assert len(hop.problems) == 1
    assert hop.largest_difference is None
    assert hop.mean_difference is None
    hop.model_dump_json()


def test_nan_on_both_sides_is_no_agreement() -> None:
    both = shifted(np.nan, 0, 0)
    assert compare(
        "x", replace(BEFORE, logits=both), after(logits=both), tolerance=1e9, flips_allowed=3, target=TARGET
    ).problems


def test_another_number_of_logits() -> None:
    hop = compare(
        "x", BEFORE, after(logits=np.zeros((3, 3), np.float32)), tolerance=1e9, flips_allowed=0, target=TARGET
    )
    assert hop.problems == ["the largest logit difference is inf, the tolerance 1e+09", "3 labels changed, 0 allowed"]


def test_the_table_names_each_hop_and_its_verdict() -> None:
    good = compare("merge", BEFORE, after(), tolerance=1e-3, flips_allowed=0, target=TARGET)
    bad = compare("export", BEFORE, after(logits=shifted(np.nan, 0, 0)), tolerance=1e-3, flips_allowed=0, target=TARGET)
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(hop_table([good, bad]))
    merge, export = [line for line in console.export_text().splitlines() if "trained -> merged" in line]
    assert "merge " in merge
    assert "pass" in merge
    assert "export" in export
    assert "fail" in export
    assert "not finite" in export


def test_of_any_number_of_labels_one_that_crosses_the_threshold_is_a_flip() -> None:
    logits = BEFORE.logits.copy()
    logits[1, 1], logits[2, 0] = -1, 0.5  # the best label of each row stays what it is
    hops = [
        compare("export", BEFORE, after(logits=logits), tolerance=5, flips_allowed=1, target=kind)
        for kind in (TARGET, ManyLabels(labels=TARGET.labels))
    ]
    assert [hop.label_flips for hop in hops] == [0, 2]
    assert [hop.problems for hop in hops] == [[], ["2 labels changed, 1 allowed"]]
