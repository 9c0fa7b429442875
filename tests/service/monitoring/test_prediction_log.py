"""Lines of the prediction log and their bounds. No request waits for the log or fails with it."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bentune.bundle.seen_rows import row_key
from service.monitoring import prediction_log
from service.monitoring.log_files import LogFiles, log_files
from service.monitoring.prediction_log import MOST_CHARACTERS, MOST_WAITING, LoggedPrediction, PredictionLog

SCORES = {"cat": 0.25, "dog": 0.75}
ABOUT = {"tokens": 5, "truncated": False, "scores": SCORES, "model": "pets:1", "content": "c"}
PATIENCE_S = 20


class Rig:
    """A log and what it counted."""

    def __init__(self, directory: Path, share: float = 1, *, texts: bool = False) -> None:
        self.counted: Counter[str] = Counter()
        self.directory = directory
        self.log = PredictionLog(directory, share, 2**20, texts=texts, count=self._count)

    def _count(self, outcome: str) -> None:
        self.counted[outcome] += 1

    def put(self, text: str, pair: str | None = None) -> None:
        kept = self.log.keep((text, pair))
        if kept is not None:
            self.log.put(kept, **ABOUT)

    def lines(self) -> list[LoggedPrediction]:
        """Close the log and read it."""
        self.log.close(PATIENCE_S)
        content = b"".join(path.read_bytes() for path in log_files(self.directory))
        return [LoggedPrediction.model_validate_json(line) for line in content.splitlines()]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_by_default_a_line_has_a_hash_and_a_length_and_no_text(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.put("A  secret text", "and another")
    (line,) = rig.lines()
    assert line.key == row_key("a secret text", "AND another").hex()
    assert (line.characters, line.tokens, line.truncated) == (25, 5, False)
    assert (line.label, line.scores, line.model, line.content) == ("dog", SCORES, "pets:1", "c")
    assert (line.text, line.text_pair) == (None, None)
    assert line.time.utcoffset() is not None
    written = b"".join(path.read_bytes() for path in log_files(tmp_path)).lower()
    assert not any(word in written for word in (b"secret", b"another"))
    assert rig.counted == {"written": 1}


def test_with_texts_they_are_there_unchanged(tmp_path: Path) -> None:
    rig = Rig(tmp_path, texts=True)
    rig.put('Ünï\n"\u2028', "two")
    rig.put("alone")
    assert [(line.text, line.text_pair) for line in rig.lines()] == [('Ünï\n"\u2028', "two"), ("alone", None)]


def test_the_share_is_that_of_the_inputs(tmp_path: Path) -> None:
    rig = Rig(tmp_path, share=0.2)
    kept = sum(rig.log.keep(("a text", None)) is not None for _ in range(20_000))
    # Five standard deviations of 57.
    assert abs(kept - 4000) < 285
    rig.log.close()


def test_a_huge_text_is_left_out_and_counted(tmp_path: Path) -> None:
    rig = Rig(tmp_path, texts=True)
    rig.put("x" * MOST_CHARACTERS)
    rig.put("x" * MOST_CHARACTERS, "y")
    assert [line.characters for line in rig.lines()] == [MOST_CHARACTERS]
    assert rig.counted == {"written": 1, "too_long": 1}


def test_when_the_disk_stands_still_lines_are_dropped_and_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, entered, append = threading.Event(), threading.Event(), LogFiles.append

    def slow(self: LogFiles, line: bytes) -> None:
        entered.set()
        assert gate.wait(PATIENCE_S)
        append(self, line)

    monkeypatch.setattr(LogFiles, "append", slow)
    rig = Rig(tmp_path)
    rig.put("first")
    assert entered.wait(PATIENCE_S)
    for number in range(MOST_WAITING + 7):
        rig.put(f"text {number}")
    assert rig.counted == {"too_many": 7}
    gate.set()
    assert len(rig.lines()) == 1 + MOST_WAITING
    assert rig.counted == {"too_many": 7, "written": 1 + MOST_WAITING}


def test_a_log_that_cannot_be_written_is_counted_and_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []
    monkeypatch.setattr(prediction_log.logger, "error", lambda *words: said.append(words))
    (tmp_path / "file").write_text("")
    rig = Rig(tmp_path / "file")
    for number in range(5):
        rig.put(f"a secret {number}")
    until(lambda: rig.counted["failed"] == 5)
    assert len(said) == 1
    assert "secret" not in str(said)
    # And it goes on as soon as it can.
    (tmp_path / "file").unlink()
    rig.put("once more")
    assert [line.key for line in rig.lines()] == [row_key("once more").hex()]


def test_closing_writes_what_waits_and_closing_a_log_that_hangs_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path)
    for number in range(100):
        rig.put(f"text {number}")
    assert len(rig.lines()) == 100

    gate = threading.Event()
    monkeypatch.setattr(LogFiles, "append", lambda *_: gate.wait(PATIENCE_S))
    hangs = Rig(tmp_path)
    for number in range(MOST_WAITING + 2):
        hangs.put(f"text {number}")
    hangs.log.close(0.01)
    gate.set()


@pytest.mark.parametrize(
    "wrong",
    [
        {"key": "../../etc"},
        {"key": "0" * 31},
        {"scores": {"cat": float("nan"), "dog": 0.5}},
        {"scores": {"cat": 7, "dog": 0.5}},
        {"scores": {}},
        {"characters": -1},
        {"more": 1},
        {"target": "span"},
        {"multi_label": True, "more": 1},
        {"time": "yesterday"},
    ],
)
def test_a_line_that_it_did_not_write_is_not_read(wrong: dict[str, Any]) -> None:
    good = {"time": "2026-01-02T03:04:05Z", "key": "0" * 32, "characters": 3, "label": "dog"} | ABOUT
    LoggedPrediction.model_validate(good)
    with pytest.raises(ValidationError):
        LoggedPrediction.model_validate(good | wrong)


def test_the_kind_of_the_target_is_told_unless_an_input_has_one_label(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    for target in ("one_label", "many_labels"):
        kept = rig.log.keep(("a text", None))
        assert kept is not None
        rig.log.put(kept, **ABOUT, target=target)
    assert [(line.target, line.kind) for line in rig.lines()] == [(None, "one_label"), ("many_labels",) * 2]
    first, second = b"".join(path.read_bytes() for path in log_files(tmp_path)).splitlines()
    assert b"target" not in first
    assert b'"target":"many_labels"' in second


@pytest.mark.parametrize(("older", "kind"), [({}, "one_label"), ({"multi_label": False}, "one_label")])
def test_a_line_of_an_older_version_is_read(older: dict[str, Any], kind: str) -> None:
    line = {"time": "2026-01-02T03:04:05Z", "key": "0" * 32, "characters": 3, "label": "dog"} | ABOUT
    assert LoggedPrediction.model_validate(line | older).kind == kind
    assert LoggedPrediction.model_validate(line | {"multi_label": True}).kind == "many_labels"
