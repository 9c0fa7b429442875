"""Offline scoring: the exact lines, and that an interruption at any point costs nothing but the chunk it hit."""

import errno
import json
import os
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scorers import FakeScorer, predictions

from bentune.bundle.errors import BentuneError, InputError, InvalidRequest
from bentune.bundle.lock import try_lock
from rollout import predict
from rollout.predict import Prediction, PredictSummary, predict_file


def interrupt() -> None:
    raise KeyboardInterrupt


class Work:
    """A file of ten rows to be scored in chunks of two, and where all its files are."""

    def __init__(self, directory: Path) -> None:
        self.texts = [f"text\n{n}, é" for n in range(10)]
        self.input = directory / "rows.jsonl"
        self.write(self.texts)
        self.output = directory / "out.jsonl"
        self.partial = directory / "out.jsonl.partial"
        self.meta = directory / "out.jsonl.partial.meta.json"
        self.progress: list[int] = []

    def write(self, texts: Sequence[str]) -> None:
        rows = ({"id": n, "text": text, "other": f"pair {n}"} for n, text in enumerate(texts))
        self.input.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def predict(self, scorer: FakeScorer | None = None, **options: Any) -> PredictSummary:
        self.progress.clear()
        options.setdefault("chunk_rows", 2)
        scorer = scorer or FakeScorer()
        return predict_file(scorer, self.input, self.output, progress=self.progress.append, **options)

    def interrupted(self, at_call: int = 3, **options: Any) -> None:
        with pytest.raises(KeyboardInterrupt):
            self.predict(FakeScorer(on_call={at_call: interrupt}), **options)

    def refused(self, scorer: FakeScorer | None = None, kind: type[Exception] = InputError, **options: Any) -> str:
        with pytest.raises(kind) as caught:
            self.predict(scorer, **options)
        assert caught.type is kind
        return str(caught.value)

    def expected(self, rows: int = 10) -> str:
        lines = ({"row": n, "prediction": predictions(self.texts[n])} for n in range(rows))
        return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)

    def goes_on_at(self, row: int, **options: Any) -> None:
        """Finish the work, and check that only rows from this one on are scored.

        All rows must be written.
        """
        scorer = FakeScorer()
        summary = self.predict(scorer, **options)
        assert (summary.rows, summary.resumed_at) == (10, row)
        assert [text for text, _ in scorer.texts] == self.texts[row:]
        assert self.output.read_text(encoding="utf-8") == self.expected()
        assert self.names() == {"rows.jsonl", "out.jsonl"}

    def names(self) -> set[str]:
        return {path.name for path in self.input.parent.iterdir()}

    @property
    def way_out(self) -> str:
        return f"delete {self.partial} to start again, or give --overwrite, or give another output"


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path)


def test_one_line_a_row_in_the_files_order_and_nothing_left_behind(work: Work) -> None:
    scorer = FakeScorer()
    summary = work.predict(scorer, chunk_rows=4)
    assert work.output.read_text(encoding="utf-8").splitlines()[1] == (
        '{"row": 1, "prediction": [{"label": "high", "score": 0.75}, {"label": "lö", "score": 0.125}, '
        '{"label": "mid", "score": 0.0625}]}'
    )
    assert work.output.read_text(encoding="utf-8") == work.expected()
    assert scorer.texts == [(text, None) for text in work.texts]
    assert scorer.calls == 3
    assert work.progress == [0, 4, 8, 10]
    assert (summary.rows, summary.resumed_at) == (10, 0)
    assert 0 < summary.seconds < 60
    assert work.names() == {"rows.jsonl", "out.jsonl"}


def test_top_k_pairs_and_columns(work: Work) -> None:
    scorer = FakeScorer()
    work.predict(scorer, text_column="other", pair_column="text", top_k=2)
    assert scorer.texts == [(f"pair {n}", text) for n, text in enumerate(work.texts)]
    for n, line in enumerate(work.output.read_text(encoding="utf-8").splitlines()):
        assert json.loads(line) == {"row": n, "prediction": predictions(f"pair {n}")[:2]}


def test_an_interrupted_run_goes_on_and_scores_no_row_twice(work: Work) -> None:
    work.interrupted(at_call=3)
    assert work.partial.read_text(encoding="utf-8") == work.expected(rows=4)
    assert not work.output.exists()
    work.goes_on_at(4, chunk_rows=5)  # the size of a chunk is free to change
    assert work.progress == [4, 9, 10]


@pytest.mark.parametrize("cut", range(1, 110, 9))
def test_a_half_written_last_line_is_cut_and_scored_again(work: Work, cut: int) -> None:
    work.interrupted()
    left = work.partial.read_bytes()[:-cut]
    work.partial.write_bytes(left)
    work.goes_on_at(left.count(b"\n"))


def test_an_interruption_before_the_rename_leaves_only_the_rename(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda old, new: interrupt() if new == work.output else replace(old, new))
        with pytest.raises(KeyboardInterrupt):
            work.predict()
    work.goes_on_at(10)


def test_each_chunk_is_durable_before_the_next_is_scored(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: dict[int, int] = {}
    fsync = os.fsync

    def recording(descriptor: int) -> None:
        synced[os.fstat(descriptor).st_ino] = os.fstat(descriptor).st_size
        fsync(descriptor)

    def check() -> None:
        size = work.partial.stat().st_size
        assert size == len(work.expected(rows=4).encode())
        assert synced[work.partial.stat().st_ino] == size
        assert synced[work.meta.stat().st_ino] == work.meta.stat().st_size

    monkeypatch.setattr(os, "fsync", recording)
    work.predict(FakeScorer(on_call={3: check}))


def test_a_bad_row_is_named_and_the_chunks_before_it_stay(work: Work) -> None:
    work.write([*work.texts[:7], " ", *work.texts[8:]])
    for calls in (3, 0):  # the second run fails at the same row and scores nothing again
        scorer = FakeScorer()
        assert work.refused(scorer, strict=True) == (
            f"{work.input}, row 7 (line 8): column 'text' is empty; fill it in or remove the row"
        )
        assert scorer.calls == calls
        assert work.partial.read_text(encoding="utf-8") == work.expected(rows=6)


@pytest.mark.parametrize(
    ("texts", "digest", "options", "names"),
    [
        (["other"] * 10, "d1", {}, "input_sha256"),
        (None, "d2", {}, "model_digest"),
        (None, "d1", {"pair_column": "other"}, "pair_column"),
        (None, "d1", {"text_column": "other", "top_k": 1}, "text_column, top_k"),
    ],
)
def test_a_partial_of_other_work_is_refused_unless_overwritten(
    work: Work, texts: list[str] | None, digest: str, options: dict[str, Any], names: str
) -> None:
    work.interrupted()
    before = work.partial.read_bytes()
    work.write(texts or work.texts)
    message = work.refused(FakeScorer(digest), **options)
    assert message == f"{work.partial}: belongs to other work ({names} differ); {work.way_out}"
    assert work.partial.read_bytes() == before
    # An overwriting run that is interrupted goes on with the partial file that it left.
    with pytest.raises(KeyboardInterrupt):
        work.predict(FakeScorer(digest, on_call={2: interrupt}), overwrite=True, **options)
    assert work.progress == [0, 2]
    work.predict(FakeScorer(digest), **options)
    assert work.progress == [2, 4, 6, 8, 10]


@pytest.mark.parametrize("meta", [None, "", "[]", "{}"])
def test_a_partial_without_a_sound_meta_file_is_refused_unless_overwritten(work: Work, meta: str | None) -> None:
    work.interrupted()
    work.meta.unlink()
    if meta is not None:
        work.meta.write_text(meta)
    problem = f"{work.meta.name}, which describes its inputs, is missing"
    if meta == "{}":
        problem = (
            "belongs to other work (input_sha256, model_digest, text_column, pair_column, top_k, form, strict differ)"
        )
    assert work.refused() == f"{work.partial}: {problem}; {work.way_out}"
    work.goes_on_at(0, overwrite=True)


@pytest.mark.parametrize("damage", ['{"row": 2, "prediction": []}', '{"row": 1}', "[]", "x"])
def test_a_damaged_partial_is_refused_unless_overwritten(work: Work, damage: str) -> None:
    work.interrupted()
    lines = work.partial.read_text(encoding="utf-8").splitlines()
    lines[1] = damage
    work.partial.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    assert work.refused() == f"{work.partial}, line 2: not the line of row 1; {work.way_out}"
    work.goes_on_at(0, overwrite=True)


def test_a_partial_without_a_finished_row_is_nobodys(work: Work) -> None:
    work.interrupted(at_call=1, top_k=1)
    work.partial.write_text('{"row": 0, "pred')
    work.goes_on_at(0)


def test_overwrite_goes_on_with_its_own_partial_and_replaces_the_output_only_at_the_end(work: Work) -> None:
    work.output.write_text("old")
    work.interrupted(overwrite=True)
    assert work.output.read_text() == "old"
    work.goes_on_at(4, overwrite=True)


def test_an_existing_output_is_refused_and_nothing_is_touched(work: Work) -> None:
    work.output.write_text("old")
    assert work.refused() == f"{work.output}: already exists; give another output, or --overwrite to replace it"
    assert work.output.read_text() == "old"
    assert work.names() == {"rows.jsonl", "out.jsonl"}


def test_two_processes_do_not_write_one_partial(work: Work) -> None:
    messages: list[str] = []

    def second() -> None:
        messages.extend(work.refused(overwrite=overwrite) for overwrite in (False, True))

    work.predict(FakeScorer(on_call={2: second}))
    problem = "another process is writing it; wait until it has ended, or give another output"
    assert messages == 2 * [f"{work.partial}: {problem}"]
    assert work.output.read_text(encoding="utf-8") == work.expected()


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_output_finished_while_waiting_for_the_lock_is_not_taken_for_a_partial(
    work: Work, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    seen: list[bytes] = []

    def late(descriptor: int) -> bool:
        if not seen:
            work.partial.write_text("of the first process\n")
            work.partial.rename(work.output)
        locked = try_lock(descriptor)
        seen.append(work.output.read_bytes())
        return locked

    monkeypatch.setattr(predict, "try_lock", late)
    if overwrite:
        work.predict(FakeScorer(on_call={3: lambda: seen.append(work.output.read_bytes())}), overwrite=True)
        assert work.output.read_text(encoding="utf-8") == work.expected()
    else:
        assert "already exists" in work.refused()
    assert set(seen) == {b"of the first process\n"}


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("rows", [5, 9])  # half a line after them: in the middle, and in the last chunk
def test_a_write_that_is_cut_short_is_told_and_gone_on_with(work: Work, rows: int) -> None:
    size = len(work.expected(rows=rows).encode()) + 10
    with files_of_at_most(size):
        message = work.refused(kind=BentuneError)
    assert message == (
        f"{work.partial}: cannot be written ({os.strerror(errno.EFBIG)}); make room there and run the same command "
        "again: it resumes after the last whole row"
    )
    assert work.partial.stat().st_size == size
    work.goes_on_at(rows)


@pytest.mark.parametrize(("full_at", "rows"), [(1, 0), (3, 2), (7, 10)])  # the meta file, the first chunk, the last
def test_a_full_disk_is_told_and_gone_on_with(
    work: Work, monkeypatch: pytest.MonkeyPatch, full_at: int, rows: int
) -> None:
    fsync, calls = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    assert work.refused(kind=BentuneError).startswith(f"{work.partial}: cannot be written (No space left on device); ")
    work.goes_on_at(rows)


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (
            [[{"label": "a", "score": float("nan")}]] * 2,
            BentuneError,
            "row 0: the model gave a score that is not a fin",
        ),
        (
            [[{"label": "a", "score": float("inf")}]] * 2,
            BentuneError,
            "row 0: the model gave a score that is not a fin",
        ),
        ([[{"label": "a", "score": 0.5}]], ValueError, "shorter"),
    ],
)
def test_a_wrong_answer_of_the_model_is_never_written(
    work: Work, monkeypatch: pytest.MonkeyPatch, answer: object, kind: type[Exception], message: str
) -> None:
    scorer = FakeScorer()
    monkeypatch.setattr(scorer, "score", lambda texts: answer)
    assert message in work.refused(scorer, kind)
    assert work.partial.read_bytes() == b""


def test_wrong_arguments_are_refused_before_anything_is_made(work: Work) -> None:
    target, output = work.input, work.output
    work.input = target.with_name("link.jsonl")
    work.input.symlink_to(target)
    before = work.names()
    assert work.refused(top_k=0) == "top_k is 0; give at least 1"
    assert work.refused(chunk_rows=-1) == "chunk_rows is -1; give at least 1"
    for work.output in (target, target.parent / "nowhere" / ".." / target.name):
        assert "would be written over the input" in work.refused(overwrite=True)
    work.output = work.input.parent
    assert "a directory where the output file should be" in work.refused(overwrite=True)
    work.output = work.input.parent / "nowhere" / "out.jsonl"
    assert "out.jsonl.partial: cannot be written (No such file or directory)" in work.refused()
    work.output, work.input = output, work.input.with_name("missing.csv")
    assert "missing.csv: no such file" in work.refused()
    assert work.names() == before


def test_a_row_that_cannot_be_answered_has_an_error_in_its_place(work: Work) -> None:
    lines = work.input.read_text().splitlines()
    lines[2], lines[5], lines[8] = '{"text": " "}', "no JSON", '{"text": null}'
    work.input.write_text("".join(line + "\n" for line in lines))
    summary = work.predict()
    assert (summary.rows, summary.errors) == (10, 3)
    found = [json.loads(line) for line in work.output.read_text(encoding="utf-8").splitlines()]
    assert [line["row"] for line in found] == [*range(10)]
    assert [line["row"] for line in found if "error" in line] == [2, 5, 8]
    assert found[2]["error"] == f"{work.input}, row 2 (line 3): column 'text' is empty; fill it in or remove the row"
    assert found[5]["error"].startswith(f"{work.input}, row 5 (line 6): not valid JSON at column 1")
    assert found[9]["prediction"] == predictions(work.texts[9])


def test_errors_are_counted_across_an_interruption(work: Work) -> None:
    work.write([" ", *work.texts[1:]])
    work.interrupted(at_call=4)
    assert work.predict().errors == 1


class Refusing(FakeScorer):
    """A scorer that refuses one text, as that of images does."""

    def score(self, texts: Sequence[tuple[str, str | None]]) -> list[list[Prediction]]:
        if any("5" in text for text, _ in texts):
            raise InvalidRequest("`inputs` is no image")
        return super().score(texts)


def test_one_input_that_the_scorer_refuses_costs_only_its_own_row(work: Work) -> None:
    summary = work.predict(Refusing(), chunk_rows=4)
    found = [json.loads(line) for line in work.output.read_text(encoding="utf-8").splitlines()]
    assert summary.errors == 1
    assert found[5] == {"row": 5, "error": "`inputs` is no image"}
    assert [line["prediction"] for line in found if "prediction" in line] == [
        predictions(text) for number, text in enumerate(work.texts) if number != 5
    ]
    work.output.unlink()
    assert work.refused(Refusing(), strict=True) == f"{work.input}, row 5 (line 6): `inputs` is no image"
