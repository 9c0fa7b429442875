"""The record of releases: its lines, and what it says is served."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from rollout.release.record import Action, Release, append, left, read, record_file, served


def line(tag: str, action: Action = Action.RELEASED, *, where: str = "c/n/d", image: str | None = None) -> Release:
    content = tag.partition(":")[2] * 64
    return Release(
        at=datetime(2026, 1, 1, tzinfo=UTC),
        tag=tag,
        content=content,
        where=where,
        action=action,
        image=image or f"image:{tag}",
    )


def test_a_line_is_the_object_that_others_read(tmp_path: Path) -> None:
    file = tmp_path / "home/bentune/releases.jsonl"
    assert read(file) == []
    append(line("a:1"), file)
    assert json.loads(file.read_text()) == {
        "at": "2026-01-01T00:00:00Z",
        "tag": "a:1",
        "content": "1" * 64,
        "where": "c/n/d",
        "action": "released",
        "image": "image:a:1",
        "reason": "",
    }
    append(line("a:2", Action.ROLLED_BACK), file)
    assert read(file) == [line("a:1"), line("a:2", Action.ROLLED_BACK)]
    assert record_file().parts[-2:] == ("bentune", "releases.jsonl")


def test_many_at_once_each_write_a_whole_line(tmp_path: Path) -> None:
    file = tmp_path / "releases.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: append(line(f"a:{number % 10}"), file), range(100)))
    assert len(read(file)) == 100


def test_a_line_that_is_none_is_told_and_left_out(tmp_path: Path) -> None:
    file = tmp_path / "releases.jsonl"
    for wrong in ("{}", "half a li", line("a:1").model_dump_json().replace("released", "relaesed"), "[" * 200_000):
        file.write_text(f"{line('a:1').model_dump_json()}\n{wrong}\n{line('a:2').model_dump_json()}\n")
        told: list[str] = []
        assert [one.tag for one in read(file, told.append)] == ["a:1", "a:2"]
        assert [words.endswith("the first is line 2") for words in told] == [True]


def test_no_text_and_no_crash_spoils_the_lines_after(tmp_path: Path) -> None:
    """Odd characters and a torn line leave the other lines readable.

    Some programs end a line at further characters, and a machine may stop in the middle of a line.
    """
    file = tmp_path / "releases.jsonl"
    odd = line("a:1").model_copy(update={"reason": "one\u2028two\u0085three\x0cfour é"})
    append(odd, file)
    assert read(file) == [odd]
    with file.open("a") as torn:
        torn.write('{"at": "2026')
    append(line("a:2"), file)
    told: list[str] = []
    assert read(file, told.append) == [odd, line("a:2")]
    assert len(told) == 1


def test_what_was_undone_or_left_is_nothing_to_return_to() -> None:
    lines = [
        line("a:1"),
        line("b:9", where="c/n/other"),
        line("a:2"),
        line("a:2"),  # the same again
        line("a:3", Action.UNDONE),
        line("a:4"),
    ]
    assert [one.tag for one in served(lines, "c/n/d")] == ["a:1", "a:2", "a:4"]
    lines.append(line("a:2", Action.ROLLED_BACK))
    assert [one.tag for one in served(lines, "c/n/d")] == ["a:1", "a:2"]
    lines.append(line("a:5"))
    assert [one.tag for one in served(lines, "c/n/d")] == ["a:1", "a:2", "a:5"]
    # Back to what this record has not seen.
    lines.append(line("a:0", Action.ROLLED_BACK))
    assert [one.tag for one in served(lines, "c/n/d")] == ["a:0"]
    assert served(lines, "nowhere") == []


def test_what_was_taken_back_or_left_is_known_until_it_is_released_again() -> None:
    lines = [line("a:1"), line("a:2"), line("a:3", Action.UNDONE), line("a:4", Action.INTERRUPTED)]
    assert left(lines, "c/n/d") == {"3" * 64}
    lines.append(line("a:1", Action.ROLLED_BACK))
    assert left(lines, "c/n/d") == {"2" * 64, "3" * 64}
    lines += [line("a:5", Action.HANDED_OVER), line("a:3"), line("a:2", where="c/n/other")]
    assert left(lines, "c/n/d") == {"2" * 64}
    assert [one.tag for one in served(lines, "c/n/d")] == ["a:1", "a:3"]
    # Another image of what serves: the model is none the worse for it.
    lines.append(line("a:3", Action.UNDONE, image="other"))
    assert left(lines, "c/n/d") == {"2" * 64}
