"""Plots are SVG in the page's colours, the same every time, and say in words what they show."""

import re

import pytest
from page import Page
from row_report import row_report

from bentune.quality.statistics.calibration import Bin
from training.pipeline.results import CurvePoint
from training.report.plots import COLOURS, Plot, curves, heat_map, lengths, reliability

POINTS = [CurvePoint(step=step, epoch=step / 10, loss=2 / step, learning_rate=1e-3 / step) for step in (10, 20, 30)]
MEASURED = {"step": 30, "epoch": 3.0, "eval_loss": 0.4, "eval_accuracy": 0.9, "eval_mcc": 0.8, "eval_log_loss": 0.3}
VALIDATED = [*POINTS, CurvePoint.model_validate(MEASURED)]
BINS = [
    Bin(low=0, high=0.5, rows=0, confidence=None, accuracy=None),
    Bin(low=0.5, high=0.9, rows=5, confidence=0.55, accuracy=0.4),
    Bin(low=0.9, high=1, rows=80, confidence=0.95, accuracy=0.96),
]


def drawn() -> list[Plot]:
    return [
        *curves(VALIDATED),
        *lengths(row_report()),
        reliability({"this model": BINS}, "How often it is right"),
        heat_map([[3, 1], [0, 4]], "Given by predicted"),
    ]


def test_each_says_what_it_shows() -> None:
    said = [plot.alt for plot in drawn()]
    assert said[0] == (
        "Loss: training rows from 0.2 at step 10 to 0.0667 at 30; validation rows from 0.4 at step 30 to 0.4 at 30"
    )
    assert said[1] == (
        "Metrics of the validation rows: accuracy from 0.9 at step 30 to 0.9 at 30; "
        "Matthews correlation from 0.8 at step 30 to 0.8 at 30"
    )
    assert said[2] == "Learning rate: learning rate from 0.0001 at step 10 to 3.33e-05 at 30"
    assert said[3] == "Words in a row: training: 12 rows, most of them (9) from 8 words on"
    assert said[4] == "Words in a row: test: 3 rows, most of them (3) from 0 words on"
    assert said[5] == (
        "How often it is right; this model: 40% right where 55% sure (5 rows); 96% right where 95% sure (80 rows)"
    )
    assert said[6] == "Given by predicted: 7 of 8 rows are on the diagonal, which is right"


def test_what_was_not_logged_has_no_plot() -> None:
    assert [plot.caption for plot in curves(POINTS)] == ["Loss", "Learning rate"]
    assert curves([]) == []


@pytest.mark.parametrize("plot", drawn(), ids=lambda plot: plot.caption)
def test_it_is_one_element_in_the_colours_of_the_page(plot: Plot) -> None:
    page = Page(plot.svg)
    assert page.elements[0][0] == "svg"
    assert page.elements[0][1].keys() == {"viewbox"}
    assert page.open == []
    assert {"style", "metadata"}.isdisjoint(tag for tag, _ in page.elements)
    assert "var(--bar)" in plot.svg
    assert not any(colour in plot.svg for colour in COLOURS.values())
    # Letters, not outlines, so that they can be searched and take the page's font.
    assert re.search(r"<text [^>]*>[^<]+</text>", plot.svg)
    assert "font-family" not in plot.svg


def test_the_same_every_time_and_no_id_twice() -> None:
    assert drawn() == drawn()
    ids = [found for plot in drawn() for found in re.findall(r'\bid="([^"]*)"', plot.svg)]
    assert len(ids) == len(set(ids))


def test_the_bars_are_as_high_as_their_rows() -> None:
    svg = lengths(row_report())[0].svg
    bars = re.findall(r'<path d="M ([\d.]+) ([\d.]+) \nL [\d.]+ [\d.]+ \nL [\d.]+ ([\d.]+) [^"]*" clip', svg)
    heights = [float(bottom) - float(top) for _, bottom, top in bars]
    assert heights[1] / heights[0] == pytest.approx(3, rel=1e-3)
