"""A run's directory: held by one process, each stage complete or not there, a full disk told in one sentence."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from results import RESULTS

from bentune.bundle.errors import BentuneError, InputError
from training.pipeline.run_dir import DiskFull, RunDir, explain_full_disk

HOLD = """
import sys, time
from pathlib import Path
from training.pipeline.run_dir import RunDir
with RunDir.open(Path(sys.argv[1]), "tiny") as run:
    (run.root / "data").mkdir(exist_ok=True)
    print(run.root, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process that holds a run, and the run's directory."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())
        process.kill()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDir]:
    with RunDir.open(tmp_path, "tiny") as opened:
        yield opened


def finish(run: RunDir, name: str = "data", **files: str) -> Any:
    work = run.begin(name, "key", keep=False)
    for file, content in files.items():
        (work / file).parent.mkdir(parents=True, exist_ok=True)
        (work / file).write_text(content)
    return run.finish("key", RESULTS[name], 0.5)


def test_a_run_in_use_is_refused_with_the_pid_that_uses_it(holder: Any, tmp_path: Path) -> None:
    process, root = holder
    with pytest.raises(InputError) as caught, RunDir.open(tmp_path, "tiny"):
        pass
    assert str(caught.value) == (
        f"{root} is in use by another process (pid {process.pid}): wait for it, or start beside it with --new"
    )
    with RunDir.open(tmp_path, "tiny", new=True) as beside:
        assert beside.root != root
    with RunDir.open(tmp_path, "other"):
        pass


def test_the_lock_ends_with_the_process_however_it_ends(holder: Any, tmp_path: Path) -> None:
    process, root = holder
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with RunDir.open(tmp_path, "tiny") as run:
        assert run.root == root
        assert (root / ".lock").read_text() == f"{os.getpid()}\n"


def test_two_that_start_at_once_do_not_both_get_a_run(tmp_path: Path) -> None:
    """flock is per open file, so two threads stand for two processes."""
    together, found = threading.Barrier(8), []
    release = threading.Event()

    def start() -> None:
        together.wait()
        try:
            with RunDir.open(tmp_path, "tiny") as run:
                found.append(run.root)
                release.wait(10)
        except InputError as error:
            found.append(str(error))
            if len(found) == 8:
                release.set()

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    (root,) = [outcome for outcome in found if isinstance(outcome, Path)]
    refusals = [outcome for outcome in found if isinstance(outcome, str)]
    assert len(refusals) == 7
    assert all(f"{root} is in use by another process (pid {os.getpid()})" in refusal for refusal in refusals)


def test_the_newest_run_goes_on_and_a_new_one_can_be_asked_for(tmp_path: Path) -> None:
    roots = []
    for _ in range(12):  # of one second, so that their names end in a number
        with RunDir.open(tmp_path, "tiny", new=True) as run:
            (run.root / "data").mkdir()
            roots.append(run.root)
    (tmp_path / "tiny/zz-notes").mkdir()
    (tmp_path / "tiny/99999999-999999").touch()
    assert len(set(roots)) == 12
    with RunDir.open(tmp_path, "tiny") as run:
        assert run.root == roots[-1]


def test_a_run_in_which_nothing_was_done_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), RunDir.open(tmp_path, "tiny"):
        raise RuntimeError
    assert list((tmp_path / "tiny").iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "missing parent", "read-only"])
def test_a_place_that_cannot_hold_runs(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tmp_path / "runs"
    if kind == "file":
        runs.touch()
    elif kind == "missing parent":
        runs = Path("/proc/runs")
    else:

        def refuse(*_: Any, **__: Any) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(Path, "mkdir", refuse)
    refused = pytest.raises(InputError, match=f"--runs: {runs}/tiny cannot be used: .*; give another directory")
    with refused, RunDir.open(runs, "tiny"):
        pass


def test_a_finished_stage_has_every_file_in_its_manifest(run: RunDir) -> None:
    assert run.record("data") is None
    record = finish(run, **{"rows.parquet": "rows", "inner/labels.json": "[]"})
    assert sorted(record.files) == ["inner/labels.json", "rows.parquet"]
    assert (record.files["rows.parquet"].size, record.seconds, record.summary) == (4, 0.5, RESULTS["data"].written())
    assert run.record("data") == record
    assert run.intact(record)
    assert sorted(path.name for path in run.root.iterdir()) == [".lock", "data"]


def test_the_manifest_is_written_last(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at any moment before, the stage is not there."""
    seen = []

    def killed(path: Path, value: object) -> None:
        seen.append((path.relative_to(run.root).as_posix(), sorted(file.name for file in path.parent.iterdir())))
        raise KeyboardInterrupt

    monkeypatch.setattr("training.pipeline.run_dir.write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        finish(run, rows="rows")
    assert seen == [("data.partial/stage.json", ["rows"])]
    assert run.record("data") is None
    assert not (run.root / "data").exists()


def test_a_stage_that_is_done_again_is_replaced_as_a_whole(run: RunDir) -> None:
    first = finish(run, old="1", both="1")
    second = finish(run, new="2", both="2")
    assert sorted(path.name for path in (run.root / "data").iterdir()) == ["both", "new", "stage.json"]
    assert first.digest != second.digest


def test_the_digest_is_that_of_the_content_and_not_of_the_time(run: RunDir) -> None:
    first = finish(run, rows="1")
    work = run.begin("data", "other key", keep=False)
    (work / "rows").write_text("1")
    assert run.finish("other key", RESULTS["data"], 99).digest == first.digest


@pytest.mark.parametrize("damage", ["change", "delete", "folder"])
def test_a_file_that_was_changed_or_lost_is_noticed(damage: str, run: RunDir) -> None:
    record = finish(run, rows="rows")
    file = run.root / "data/rows"
    if damage == "change":
        file.write_text("sows")
    else:
        file.unlink()
        if damage == "folder":
            file.mkdir()
    assert not run.intact(record)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"stage": "data"}', "\0"])
def test_a_manifest_that_is_none_means_that_the_stage_is_not_done(content: str, run: RunDir) -> None:
    finish(run, rows="rows")
    (run.root / "data/stage.json").write_text(content)
    assert run.record("data") is None


def test_unfinished_work_is_kept_for_the_same_key_alone(run: RunDir) -> None:
    def begin(key: str, keep: bool) -> bool:
        work = run.begin("train", key, keep=keep)
        there = (work / "checkpoint").exists()
        (work / "checkpoint").touch()
        return there

    assert [begin(*arguments) for arguments in (("a", True), ("a", True), ("b", True), ("b", False), ("b", True))] == [
        *(False, True, False, False, True)
    ]


def test_the_key_of_kept_work_is_not_written_again(run: RunDir) -> None:
    """On a full disk that would lose it, and with it the checkpoints."""
    work = run.begin("train", "a", keep=True)
    (work / "key").chmod(0o400)
    before = (work / "key").stat().st_mtime_ns
    run.begin("train", "a", keep=True)
    assert (work / "key").stat().st_mtime_ns == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_work_that_fails_leaves_nothing_but_what_is_worth_keeping(error: type[BaseException], run: RunDir) -> None:
    def fail(kept: set[str]) -> None:
        with run.working("train", "a", keep=True, worth_keeping=lambda _: kept) as work:
            (work / "checkpoints").mkdir()
            (work / "model").mkdir()
            (work / "labels.json").touch()
            raise error

    for kept in (set[str](), {"checkpoints"}):
        with pytest.raises(error):
            fail(kept)
        left = sorted(path.relative_to(run.root).as_posix() for path in run.root.glob("*.partial/*"))
        assert left == (["train.partial/checkpoints", "train.partial/key"] if kept else [])
        assert (run.root / "train.partial").exists() == bool(kept)


def test_work_that_cannot_even_begin_leaves_nothing(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"), run.working("train", "a", keep=True):
        pass
    assert not (run.root / "train.partial").exists()


def chained(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 130368 vs 130260"),
        RuntimeError("PytorchStreamWriter failed writing file data/1: file write failed"),
        chained(BentuneError("export failed"), OSError(errno.ENOSPC, "No space left on device")),
        chained(InputError("data.source: could not be loaded"), chained(ValueError(), OSError(errno.ENOSPC, "x"))),
    ],
)
def test_a_full_disk_is_told_in_one_sentence_however_it_was_worded(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(DiskFull) as caught, explain_full_disk(tmp_path / "not/yet/there"):
        raise error
    assert str(caught.value).startswith(f"the disk of {tmp_path}/not/yet/there is full (")
    assert str(caught.value).endswith("MB free): make room and give the same command again; finished stages are kept")
    assert caught.value.exit_code == 3


def test_another_disk_that_is_full_is_named(tmp_path: Path) -> None:
    store = tmp_path / "store/file"
    with pytest.raises(DiskFull, match=f"the disk of {store} is full"), explain_full_disk(tmp_path / "runs"):
        raise OSError(errno.ENOSPC, "No space left on device", str(store))
    with pytest.raises(DiskFull, match=f"the disk of {tmp_path}/runs is full"), explain_full_disk(tmp_path / "runs"):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "runs/a/b"))


@pytest.mark.parametrize("error", [OSError(errno.EIO, "x"), ValueError("x"), InputError("x"), KeyboardInterrupt()])
def test_other_errors_stay_what_they_are(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught, explain_full_disk(tmp_path):
        raise error
    assert caught.value is error


def test_the_first_explanation_stands(tmp_path: Path) -> None:
    outer, inner = explain_full_disk(tmp_path), explain_full_disk(tmp_path / "inner")
    with pytest.raises(DiskFull, match="disk of .*/inner is full"), outer, inner:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_the_manifest_is_json_for_people(run: RunDir) -> None:
    finish(run, rows="rows")
    content = json.loads((run.root / "data/stage.json").read_text())
    assert content["stage"] == "data"
    assert content["files"]["rows"]["size"] == 4


def test_a_run_with_a_purpose_is_gone_on_with_for_that_purpose_alone(tmp_path: Path) -> None:
    roots = {}
    for purpose in ("", "one", "two"):
        with RunDir.open(tmp_path, "tiny", purpose=purpose) as opened:
            roots[purpose] = opened.root
            finish(opened)
    assert len(set(roots.values())) == 3
    for purpose, root in roots.items():
        with RunDir.open(tmp_path, "tiny", purpose=purpose) as opened:
            assert opened.root == root
    with RunDir.open(tmp_path, "tiny", purpose="one", new=True) as opened:
        assert opened.root not in roots.values()
    assert not opened.root.exists(), "nothing was done in it"


def test_two_with_the_same_purpose_get_a_run_each(tmp_path: Path) -> None:
    with RunDir.open(tmp_path, "tiny", purpose="one") as first, RunDir.open(tmp_path, "tiny", purpose="one") as second:
        finish(first)
        finish(second)
        assert first.root != second.root
    with RunDir.open(tmp_path, "tiny", purpose="one") as again:
        assert again.root == second.root


def test_the_runs_that_there_are(tmp_path: Path) -> None:
    assert RunDir.existing(tmp_path, "news") == []
    roots = []
    for purpose in ("", "retrain", "", "retrain"):
        with RunDir.open(tmp_path, "news", new=True, purpose=purpose) as run:
            (run.root / "data").mkdir()
            roots.append(run.root)
    (tmp_path / "news/notes").mkdir()
    assert RunDir.existing(tmp_path, "news") == roots[::2]
    assert RunDir.existing(tmp_path, "news", "retrain") == roots[1::2]
    assert RunDir.existing(tmp_path, "news", "other") == []
