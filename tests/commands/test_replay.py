"""The command `replay`: its exit codes, and that what strangers wrote cannot move the cursor."""

import json
from pathlib import Path
from typing import Any

import pytest
from logged import log_of
from tiny import sentences

from bentune.bundle.manifest import open_bundle


def test_a_candidate_that_answers_as_before_passes(bentune: Any, tiny_tag: str, tmp_path: Path) -> None:
    log = log_of(tmp_path / "log", sentences(90, seed=3))
    code, out, _ = bentune("replay", log, "--against", tiny_tag, "--max-disagreement", "0.02", "--json")
    said = json.loads(out)
    assert (code, said["rows"], said["flips"]) == (0, 90, 0)
    assert said["disagreement"]["high"] == pytest.approx(0.0409, abs=1e-4)
    assert said["answered_by"] == {"tiny:before": 90}


def test_one_that_does_not_exits_with_1_and_shows_where(bentune: Any, tiny_tag: str, tmp_path: Path) -> None:
    rows = sentences(90, seed=3)
    rows[:9] = [(f"\x1b[2J[red]{text}", {"animal": "tool"}.get(label, "animal")) for text, label in rows[:9]]
    log = log_of(tmp_path / "log", rows)
    code, out, err = bentune("replay", log, "--against", tiny_tag, "--max-disagreement", "0.05")
    assert code == 1
    assert "9 of 90 answers change" in out
    assert "10.00% [" in out
    (row,) = (line.replace("│", " ").split() for line in out.splitlines() if line.startswith("│ tool "))
    assert row == ["tool", "30", "3", "(10.00%)", "3.46%", "to", "25.62%", "animal", "3"]
    assert "replay: 9 of 90 answers change" in err
    assert "--max-disagreement allows 5.00%" in err
    assert "\x1b[2J" not in out
    assert "[2J[red]" in out
    assert bentune("replay", log, "--against", tiny_tag)[0] == 0, "without a bound it only reports"


def test_without_texts_it_exits_with_2_and_says_what_to_set(bentune: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    log = log_of(tmp_path / "log", sentences(9), texts=False)
    code, out, err = bentune("replay", log, "--against", tiny_bundle)
    assert (code, out) == (2, "")
    assert "its 9 predictions have no texts" in err
    assert "BENTUNE_PREDICTION_LOG_TEXT=true" in err
    assert open_bundle(tiny_bundle).tag not in err
