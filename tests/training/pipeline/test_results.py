"""Results come back from stage.json as they were written, and what other code wrote is refused."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from results import RESULTS as SMALL

from bentune.bundle.files import write_json
from training.pipeline.results import RESULTS, CurvePoint, DataResult, MergeResult, StageRecord, result_in
from training.pipeline.stage import MODULES


def test_every_stage_has_a_result() -> None:
    assert list(RESULTS) == list(MODULES) == list(SMALL)


@pytest.mark.parametrize("stage", [name for name in MODULES if name != "calibrate"])
def test_a_result_is_written_as_it_was_read(stage: str, tiny_run: Path) -> None:
    summary = json.loads((tiny_run / stage / "stage.json").read_text())["summary"]
    assert result_in(tiny_run / stage, RESULTS[stage]).written() == summary


def test_what_a_run_does_not_have_has_no_key() -> None:
    assert {"parent"}.isdisjoint(SMALL["data"].written())
    assert {"teacher", "pruned"}.isdisjoint(SMALL["train"].written())
    assert SMALL["data"].written()["labels_a_row"] is None


def test_a_result_of_other_code_is_refused(tmp_path: Path) -> None:
    for summary in ({}, {"weights_sha256": "a", "more": 1}):
        write_json(tmp_path / "stage.json", StageRecord(stage="merge", key="", files={}, seconds=1, summary=summary))
        with pytest.raises(ValidationError):
            result_in(tmp_path, MergeResult)
    with pytest.raises(ValidationError):
        result_in(tmp_path, DataResult)


def test_a_point_of_the_curve_has_the_metrics_of_the_validation_rows() -> None:
    logged = {"step": 10, "epoch": 1.5, "eval_loss": 0.25, "eval_accuracy": 0.75}
    point = CurvePoint.model_validate(logged)
    assert point.metrics == {"accuracy": 0.75}
    assert (point.measured("loss"), point.measured("accuracy"), point.measured("mcc")) == (0.25, 0.75, None)
    assert point.model_dump(exclude_unset=True) == logged
