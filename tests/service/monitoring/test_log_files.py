"""The log keeps to its bound, loses whole old files and no half lines, and is nobody else's to read."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from bentune.bundle.lock import try_lock
from service.monitoring.log_files import FILES, LogFiles, log_files

MOST = 8 * 100


def line(number: int, size: int = 20) -> bytes:
    return f"{number:0{size - 1}d}\n".encode()


def content(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in log_files(directory))


def test_lines_come_back_in_order_from_a_file_of_mode_600(tmp_path: Path) -> None:
    files = LogFiles(tmp_path / "a/log", MOST)
    for number in range(12):
        files.append(line(number))
    assert content(tmp_path / "a/log") == b"".join(map(line, range(12)))
    found = log_files(tmp_path / "a/log")
    assert [path.stat().st_size for path in found] == [100, 100, 40]
    assert {path.stat().st_mode & 0o777 for path in found} == {0o600}
    assert (tmp_path / "a/log").stat().st_mode & 0o777 == 0o700


@given(st.lists(st.integers(1, 100), min_size=1, max_size=80))
@examples(30)
def test_the_bound_holds_after_every_line_and_the_newest_lines_stay(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    directory = tmp_path_factory.mktemp("log")
    files, written = LogFiles(directory, MOST), b""
    for size in sizes:
        files.append(b"x" * (size - 1) + b"\n")
        written += b"x" * (size - 1) + b"\n"
        found = log_files(directory)
        assert sum(path.stat().st_size for path in found) <= MOST
        assert len(found) <= FILES
    files.close()
    assert written.endswith(content(directory))
    # Each of seven finished files is more than half full on average, since no line is larger than a file.
    assert len(content(directory)) >= min(len(written), MOST // 3)


def test_what_an_earlier_process_left_counts_and_goes_first(tmp_path: Path) -> None:
    before = LogFiles(tmp_path, MOST)
    for number in range(40):
        before.append(line(number))
    before.close()
    (tmp_path / "notes.txt").write_text("not ours")
    after = LogFiles(tmp_path, MOST)
    after.append(line(40))
    assert content(tmp_path).startswith(line(5))
    assert content(tmp_path).endswith(line(39) + line(40))
    assert (tmp_path / "notes.txt").exists()


def test_a_bound_that_was_lowered_is_kept_to(tmp_path: Path) -> None:
    before = LogFiles(tmp_path, MOST)
    for number in range(40):
        before.append(line(number))
    before.close()
    LogFiles(tmp_path, MOST // 2).append(line(40))
    assert len(content(tmp_path)) <= MOST // 2


def test_a_file_that_another_process_writes_is_not_deleted(tmp_path: Path) -> None:
    other = LogFiles(tmp_path, MOST)
    other.append(line(0))
    files = LogFiles(tmp_path, MOST)
    for number in range(1, 100):
        files.append(line(number))
    assert content(tmp_path).startswith(line(0))
    # It may still be filled, and the bound holds even then.
    for number in range(100, 104):
        other.append(line(number))
    assert len(content(tmp_path)) <= MOST


def test_where_others_write_all_there_may_be_nothing_is_written(tmp_path: Path) -> None:
    others = [LogFiles(tmp_path, MOST) for _ in range(FILES)]
    for one in others:
        one.append(line(0))
    with pytest.raises(OSError, match="other processes write 8 files"):
        LogFiles(tmp_path, MOST).append(line(1))
    others[0].close()
    LogFiles(tmp_path, MOST).append(line(1))


def test_a_line_larger_than_a_file_is_refused(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, MOST)
    with pytest.raises(OSError, match="a line of 101 bytes"):
        files.append(line(1, 101))
    files.append(line(2))
    assert content(tmp_path) == line(2)


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = LogFiles(tmp_path, MOST)
    files.append(line(1))
    write = os.write

    def full(file: int, data: Any) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data[:7])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        files.append(line(2))
    monkeypatch.undo()
    files.append(line(3))
    assert content(tmp_path) == line(1) + line(3)


def test_a_link_that_somebody_put_there_is_neither_read_nor_deleted(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "log").mkdir()
    link = tmp_path / "log" / f"predictions-{0:020d}-1.jsonl"
    link.symlink_to(tmp_path / "secret")
    files = LogFiles(tmp_path / "log", MOST)
    for number in range(100):
        files.append(line(number))
    assert link not in log_files(tmp_path / "log")
    assert link.is_symlink()


def test_the_lock_ends_with_the_file(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, MOST)
    files.append(line(1))
    (path,) = log_files(tmp_path)
    with path.open() as file:
        assert not try_lock(file.fileno())
        files.close()
        assert try_lock(file.fileno())
