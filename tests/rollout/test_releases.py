"""The record of releases: its lines, and what it says is served."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rollout.releases import Action, Release, append, read, record_file, served
from service.errors import InputError


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


def test_a_line_that_is_none_is_named(tmp_path: Path) -> None:
    file = tmp_path / "releases.jsonl"
    append(line("a:1"), file)
    for wrong in ("{}", "half a li", line("a:1").model_dump_json().replace("released", "relaesed")):
        file.write_text(f"{line('a:1').model_dump_json()}\n{wrong}\n")
        with pytest.raises(InputError, match=r"releases.jsonl: line 2 is no record of a release"):
            read(file)


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
