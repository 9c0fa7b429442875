"""The evaluation's tables: a column for every cell."""

from pathlib import Path

import pytest

from bentune.bundle.verdict import Difference
from training.prove.evaluation import Evaluation, Scaled
from training.prove.evaluation_table import metrics_table


@pytest.fixture(scope="module")
def evaluation(tiny_run: Path) -> Evaluation:
    return Evaluation.model_validate_json((tiny_run / "evaluate/evaluation.json").read_bytes())


def test_without_a_temperature_there_is_no_column_for_it(evaluation: Evaluation) -> None:
    table = metrics_table(evaluation)
    assert [column.header for column in table.columns] == ["metric", "base", "tuned"]
    cells = dict(zip(*(column.cells for column in table.columns[::2]), strict=True))
    accuracy = evaluation.tuned.accuracy
    assert cells["accuracy"] == f"{accuracy.value:.3f}  [{accuracy.low:.3f}, {accuracy.high:.3f}]"


def test_with_one_it_says_what_was_before(evaluation: Evaluation) -> None:
    base = evaluation.base
    scaled = Scaled(
        temperature=1.25,
        rows=30,
        before=base.calibration,
        log_loss_before=base.log_loss,
        brier_before=base.brier,
        error=Difference(value=0, low=0, high=0),
    )
    table = metrics_table(evaluation.model_copy(update={"temperature": scaled}))
    assert table.columns[-1].header == "before the temperature"
    before = dict(zip(*(column.cells for column in table.columns[::3]), strict=True))
    assert before["accuracy"] == ""
    assert before["log_loss"].startswith(f"{base.log_loss.value:.3f}  [")
