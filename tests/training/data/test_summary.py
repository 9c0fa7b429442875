"""data/report.json: what the data stage tells of its rows, and that none of it gets into the evidence."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import Quiet

from bentune.bundle.errors import InputError
from training.data import stage as data
from training.data.report import DataReport
from training.pipeline.stage import Context
from training.recipe.recipe import Recipe


def run(folder: Path, rows: list[dict[str, Any]], **more: Any) -> tuple[dict[str, Any], DataReport]:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "work").mkdir()
    given = {"name": "x", "task": "text-classification", "model": "m"}
    recipe = Recipe.model_validate(given | {"data": {"source": str(folder / "rows.jsonl")} | more})
    summary = data.run(Context(recipe, folder / "work", {}, Quiet())).written()
    return summary, DataReport.model_validate_json((folder / "work/report.json").read_bytes())


def row(number: int, text: str = "", label: str = "") -> dict[str, Any]:
    words = " ".join(f"{number}x{place}" for place in range(30))
    return {"text": text or words, "label": label or "ab"[number % 2]}


def test_everything_is_told_with_samples_and_nothing_of_it_in_the_summary(tmp_path: Path) -> None:
    rows = [row(number) for number in range(40)]
    rows += [
        row(0),
        row(1, rows[1]["text"] + "!"),
        row(2, rows[2]["text"].upper(), "b"),
        row(3, rows[3]["text"] + "?", "a"),
        row(50, "secret <br> <b>words</b> &amp; more"),
        row(52, "x" * 200),
        row(53, "<p></p>"),
        row(54, " "),
    ]
    clean = {"html": "fix", "max_characters": 190}
    summary, report = run(tmp_path, rows, clean=clean, invalid_rows="drop", split={"validation": 0.25})
    assert (report.rows_read, report.rows_kept) == (48, 42)
    assert summary["read"] == 48
    rules = {(rule.rule, rule.effect): rule for rule in report.cleaning}
    assert {place: rule.rows for place, rule in rules.items()} == {
        ("html", "fixed"): 2,
        ("column 'text' has more than 190 characters", "left out"): 1,
        ("nothing is left of column 'text' after cleaning", "left out"): 1,
        ("column 'text' is empty", "left out"): 1,
    }
    [mended, *_] = rules["html", "fixed"].samples
    assert (mended.before, mended.after) == ("secret <br> <b>words</b> &amp; more", "secret words & more")
    assert mended.origin == "rows.jsonl line 45"
    exact = [found for found in report.duplicates if found.kind == "exact"]
    near = [found for found in report.duplicates if found.kind == "near"]
    assert [found.rows for found in (*exact, *near)] == [1, 1]
    assert exact[0].samples[0].similarity == near[0].samples[0].similarity == 1
    origins = {near[0].samples[0].kept.origin, near[0].samples[0].other.origin}
    assert origins == {"rows.jsonl line 2", "rows.jsonl line 42"}
    assert near[0].part in {"train", "test", "validation"}
    contradictions = {found.kind: found for found in report.contradictions}
    assert {kind: found.rows for kind, found in contradictions.items()} == {"exact": 1, "near": 1}
    for found in contradictions.values():
        [pair] = found.samples
        assert {pair.kept.label, pair.other.label} == {"a", "b"}
    assert {name: part.rows for name, part in report.parts.items()} == summary["rows"]
    for part in report.parts.values():
        assert sum(part.characters.counts) == sum(part.words.counts) == sum(part.labels.values()) == part.rows
        assert len(part.words.counts) == len(report.word_edges)
    assert (report.split.kind, report.split.seed, report.split.test, report.split.validation) == (
        "label",
        42,
        0.2,
        0.25,
    )
    assert "secret" not in json.dumps(summary)
    assert "0x1" not in json.dumps(summary)
    assert summary["cleaned"] == {
        "html": {"rows": 2, "effect": "fixed", "samples": ["rows.jsonl line 45", "rows.jsonl line 47"]}
    }


def test_one_huge_row_does_not_press_all_others_into_one_bin(tmp_path: Path) -> None:
    _, report = run(tmp_path, [*(row(number) for number in range(400)), row(401, "long " * 10_000)])
    assert len(report.character_edges) == 30
    assert sum(part.characters.counts[-1] for part in report.parts.values()) < 100
    assert max(part.words.largest for part in report.parts.values()) == 10_000


def test_by_default_texts_are_not_changed(tmp_path: Path) -> None:
    rows = [row(number) for number in range(20)] + [row(20, "caf\u00c3\u00a9 <br> \u0007 text")]
    summary, report = run(tmp_path, rows)
    assert [(rule.rule, rule.effect) for rule in report.cleaning] == [
        ("mojibake", "found"),
        ("control_characters", "found"),
        ("html", "found"),
    ]
    assert sum(summary["rows"].values()) == 21
    (tmp_path / "other").mkdir()
    summary_off, _ = run(
        tmp_path / "other", rows, clean={"html": "off", "mojibake": "off", "control_characters": "off"}
    )
    assert summary_off["fingerprint"] == summary["fingerprint"]
    assert summary_off["cleaned"] == {}


@pytest.mark.parametrize(
    ("rows", "said"), [(40, "10 invalid rows"), (80, "the first 10 of 20 invalid rows"), (8, "2 invalid rows")]
)
def test_bad_rows_are_counted_and_the_first_ten_told_at_once(tmp_path: Path, rows: int, said: str) -> None:
    with pytest.raises(InputError) as caught:
        run(tmp_path, [row(number, " " if number % 4 == 0 else "") for number in range(rows)])
    assert str(caught.value) == (
        f"{tmp_path / 'rows.jsonl'}: {said}:\n"
        + "".join(f"  rows.jsonl line {line}: column 'text' is empty\n" for line in range(1, rows, 4)[:10])
        + "fix them, or set data.invalid_rows to drop"
    )


@pytest.mark.parametrize(
    ("more", "values", "words"),
    [
        ({"group": "who"}, {"who": None}, "column 'who' has no group (NoneType)"),
        ({"group": "who"}, {"who": " "}, "column 'who' has no group (str)"),
        ({"time": "when"}, {"when": "soon"}, "column 'when' is neither an ISO date like 2026-05-31 nor a number (str)"),
        ({"time": "when"}, {"when": 2026}, "column 'when' is a number here and a date before"),
    ],
)
def test_a_row_that_cannot_be_put_on_a_side_is_named(
    more: dict[str, str], values: dict[str, Any], words: str, tmp_path: Path
) -> None:
    rows = [row(number) | {"who": number, "when": f"2026-01-{number + 1:02}"} for number in range(20)]
    with pytest.raises(InputError) as caught:
        run(tmp_path, [*rows, row(20) | {"who": 1, "when": "2026-02-01"} | values], split=more)
    assert f"rows.jsonl line 21: {words}; fix the row" in str(caught.value)


def test_a_column_to_split_by_that_is_not_there(tmp_path: Path) -> None:
    rows = [row(number) | {"customer_id": number} for number in range(20)]
    with pytest.raises(
        InputError, match="data.split.group: .* has no column 'customer'; .* did you mean 'customer_id'"
    ):
        run(tmp_path, rows, split={"group": "customer"})
