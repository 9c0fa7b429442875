"""The data stage: which rows are used, how they are split, and what is refused."""

import contextlib
import csv
import json
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hub_repository import write_hub
from hypothesis import example, given
from hypothesis import strategies as st
from properties import examples
from tiny import Quiet

from bentune.bundle.errors import InputError
from bentune.bundle.seen_rows import SeenRows, labelled_key, row_key
from training.data import stage as data
from training.data.reading import pool
from training.data.reading.reading import row_key_with_label
from training.pipeline.stage import Context
from training.recipe.recipe import Recipe

Split = dict[str, list[tuple[str, int]]]


def recipe(source: Path | str | list[str], seed: int = 42, **more: Any) -> Recipe:
    given = {"name": "x", "task": "text-classification", "model": "m", "seed": seed}
    return Recipe.model_validate(
        given | {"data": {"source": source if isinstance(source, list) else str(source)} | more}
    )


def run(work: Path, recipe: Recipe) -> tuple[dict[str, Any], Split]:
    """Run the stage in `work`; its summary, and (text, label number) of each split."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    summary = data.run(Context(recipe, work, {}, Quiet())).written()
    tables = {path.stem: pq.read_table(path) for path in work.glob("*.parquet")}
    return summary, {
        name: list(zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True))
        for name, table in tables.items()
    }


def write(path: Path, rows: Sequence[tuple[object, ...]], header: Sequence[str] = ("text", "label")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def some(count: int, labels: Sequence[str] = ("a", "b")) -> list[tuple[str, str]]:
    return [(f"text {number}", labels[number % len(labels)]) for number in range(count)]


def refused(work: Path, recipe: Recipe) -> str:
    with pytest.raises(InputError) as caught:
        run(work, recipe)
    return str(caught.value)


def test_rows_are_held_out_by_label(tmp_path: Path) -> None:
    rows = some(100, ["a", "a", "a", "a", "b"])
    summary, split = run(tmp_path / "work", recipe(write(tmp_path / "rows.csv", rows)))
    assert summary["labels"] == ["a", "b"]
    assert json.loads((tmp_path / "work/labels.json").read_text()) == ["a", "b"]
    assert summary["rows"] == {"train": 80, "test": 20}
    assert summary["rows_by_label"] == {"train": {"a": 64, "b": 16}, "test": {"a": 16, "b": 4}}
    assert Counter(label for _, label in split["test"]) == {0: 16, 1: 4}
    expected = {(text, ["a", "b"].index(label)) for text, label in rows}
    assert set(split["train"]) | set(split["test"]) == expected
    assert not set(split["train"]) & set(split["test"])
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == [
        "doubtful.jsonl",
        "labels.json",
        "report.json",
        "rows.json",
        "target.json",
        "test.parquet",
        "train.parquet",
    ]


def test_blanks_around_a_text_stay_as_the_service_gets_them(tmp_path: Path) -> None:
    """Some tokenizers see them."""
    rows = [(f"  {text}\n", label) for text, label in some(20)]
    _, split = run(tmp_path / "work", recipe(write(tmp_path / "rows.csv", rows)))
    assert sorted(text for part in split.values() for text, _ in part) == sorted(text for text, _ in rows)


def test_what_was_seen_is_written_down_without_the_texts(tmp_path: Path) -> None:
    rows = some(100)
    spec = recipe(write(tmp_path / "rows.csv", rows), split={"test": 0.2, "validation": 0.2})
    _, split = run(tmp_path / "work", spec)
    seen = SeenRows.model_validate_json((tmp_path / "work/rows.json").read_bytes())
    keys = {name: [row_key(text.upper()) for text, _ in part] for name, part in split.items()}
    assert seen.trained.has(keys["train"] + keys["validation"]).all()
    assert seen.held_out.has(keys["test"]).all()
    assert not seen.trained.has(keys["test"]).any()
    assert not seen.held_out.has(keys["train"]).any()
    both = {
        there: [
            labelled_key(row_key(text), "ab"[label if there else 1 - label])
            for part in split.values()
            for text, label in part
        ]
        for there in (True, False)
    }
    assert seen.labelled.has(both[True]).all()
    assert not seen.labelled.has(both[False]).any()
    assert "text" not in (tmp_path / "work/rows.json").read_text()


def test_some_training_rows_can_be_kept_for_validation(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", some(100))
    summary, split = run(tmp_path / "work", recipe(path, split={"validation": 0.25}))
    assert summary["rows"] == {"train": 60, "validation": 20, "test": 20}
    assert summary["rows_by_label"]["validation"] == {"a": 10, "b": 10}
    assert len({text for part in split.values() for text, _ in part}) == 100


def test_the_split_follows_from_the_seed(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", some(100))
    held_out = [set(run(tmp_path / "work", recipe(path, seed))[1]["test"]) for seed in (1, 1, 2)]
    assert held_out[0] == held_out[1] != held_out[2]


TEXTS = st.sampled_from(["red", "Red", " red ", "blue", "BLUE", "green", "pink", "a b", "a  b", "é", "teal", "x y z"])


@examples(60, fixtures=True)
@given(
    rows=st.lists(st.tuples(TEXTS, st.sampled_from(["1", "2"])), max_size=12),
    order=st.randoms(use_true_random=False),
    validation=st.sampled_from([0.0, 0.25]),
    limit=st.sampled_from([None, 12]),
)
@example(
    rows=[("red", "1"), ("Red", "2"), ("blue", "1"), ("BLUE", "1")], order=random.Random(1), validation=0.25, limit=12
)
def test_nothing_depends_on_the_order_of_the_rows(
    rows: list[tuple[str, str]], order: random.Random, validation: float, limit: int | None
) -> None:
    """Duplicates, rows that contradict each other, limits and validation included."""
    everything = rows + some(24, ["1", "2"])
    shuffled = list(everything)
    order.shuffle(shuffled)
    with tempfile.TemporaryDirectory() as folder:
        outcomes = []
        for version in (everything, shuffled):
            path = write(Path(folder) / "rows.csv", version)
            more = {"split": {"validation": validation}, "rows": {"train": limit}}
            outcomes.append(run(Path(folder) / "work", recipe(path, **more)))
    (summary, split), (other_summary, other_split) = outcomes
    assert summary["fingerprint"] == other_summary["fingerprint"]
    assert {name: sorted(part) for name, part in split.items()} == {n: sorted(part) for n, part in other_split.items()}
    assert summary["rows_by_label"] == other_summary["rows_by_label"]
    dropped, other_dropped = (
        sum(reason["rows"] for reason in part["dropped"].values()) for part in (summary, other_summary)
    )
    assert dropped == other_dropped
    # And no text is on two sides, whatever its case and spacing.
    sides = [{" ".join(text.casefold().split()) for text, _ in part} for part in split.values()]
    assert sum(map(len, sides)) == len(set().union(*sides))


@examples(25, fixtures=True)
@given(
    rows=st.lists(st.tuples(TEXTS, st.sampled_from(["1", "2"]), st.integers(0, 5)), max_size=12),
    cuts=st.lists(st.integers(0, 36), min_size=1, max_size=3),
    order=st.randoms(use_true_random=False),
    column=st.sampled_from(["group", "time", None]),
)
def test_the_same_rows_in_other_files_have_the_same_fingerprint_and_the_same_sides(
    rows: list[tuple[str, str, int]], cuts: list[int], order: random.Random, column: str | None
) -> None:
    everything = [*rows, *((text, label, number % 8) for number, (text, label) in enumerate(some(24, ["1", "2"])))]
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(2):
            bounds = [0, *sorted(cuts if turn else []), len(everything)]
            pieces = [piece for start, end in pairwise(bounds) if (piece := everything[start:end])]
            files = [
                write(Path(folder) / f"{turn}-{number}.csv", piece, ("text", "label", "key"))
                for number, piece in enumerate(pieces)
            ]
            order.shuffle(files)
            source = [str(file) for file in files]
            split = {"test": 0.25, **({column: "key"} if column else {})}
            outcomes.append(run(Path(folder) / "work", recipe(source, split=split)))
            order.shuffle(everything)
    (summary, split_), (other_summary, other_split) = outcomes
    assert summary["fingerprint"] == other_summary["fingerprint"]
    assert {name: sorted(part) for name, part in split_.items()} == {n: sorted(part) for n, part in other_split.items()}


def test_the_fingerprint_changes_with_every_part_of_a_row(tmp_path: Path) -> None:
    base = some(20)
    rows = [base, [*base[:-1], ("other text", "b")], [*base[:-1], (base[-1][0], "a")], base[:-1]]
    prints = {
        run(tmp_path / "work", recipe(write(tmp_path / "rows.csv", version)))[0]["fingerprint"] for version in rows
    }
    assert len(prints) == 4


def test_duplicates_and_contradictions_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = [*some(20), ("TEXT  0", "a"), ("text 0 ", "a"), ("text 1", "a"), ("text 3", "b")]
    summary, split = run(tmp_path / "work", recipe(write(tmp_path / "rows.csv", rows)))
    kept = {
        row["origin"]
        for name in ("train", "test")
        for row in pq.read_table(tmp_path / f"work/{name}.parquet").to_pylist()
    }
    copies, contradicting = [2, 22, 23, 5, 25], [3, 24]
    assert {reason: dropped["rows"] for reason, dropped in summary["dropped"].items()} == {
        "duplicate": 3,
        "same text as another row, other label": 1,
    }
    # Named are the rows that are left out, not those that come later in the file.
    assert set(summary["dropped"]["duplicate"]["samples"]) == {f"rows.csv line {line}" for line in copies} - kept
    [named] = summary["dropped"]["same text as another row, other label"]["samples"]
    assert {named} == {f"rows.csv line {line}" for line in contradicting} - kept
    assert sum(map(len, split.values())) == 20


def test_a_label_whose_only_rows_contradict_others_does_no_harm(tmp_path: Path) -> None:
    outcomes = set()
    for number in range(8):
        rows = [*some(20), (f"text {number}", "c")]
        source = recipe(write(tmp_path / "rows.csv", rows))
        try:
            outcomes.add(tuple(run(tmp_path / "work", source)[0]["labels"]))
        except InputError as error:
            assert "label 'c' has a single row" in str(error)  # noqa: PT017
            outcomes.add(("refused",))
    assert outcomes == {("a", "b"), ("refused",)}


def test_held_out_rows_of_a_hub_split_are_never_rows_to_train_on(tmp_path: Path) -> None:
    hub = write_hub(tmp_path / "yelp", train=30, test=9)
    table = pq.read_table(hub / "yelp_review_full/train-00000-of-00001.parquet")
    pq.write_table(table.slice(0, 12), hub / "yelp_review_full/test-00000-of-00001.parquet")
    assert "has no usable row (12 same text as a row of the training split)" in refused(
        tmp_path / "work", recipe(hub, split={"test": "test"})
    )
    write_hub(hub, train=30, test=9)
    summary, split = run(tmp_path / "work", recipe(hub, split={"test": "test"}))
    assert summary["labels"] == ["1 star", "2 star", "3 stars"]
    assert summary["rows"] == {"train": 30, "test": 9}
    assert split["test"][1] == ("test review 1", 1)


def test_a_label_with_a_single_row(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", [*some(20), ("lonely", "c")])
    assert refused(tmp_path / "work", recipe(path)) == (
        f"{path}, data.split.test: label 'c' has a single row, and each part of the split needs one: add rows, "
        "merge it into another label with data.labels, or remove it"
    )
    assert run(tmp_path / "work", recipe(path, labels={"c": "a"}))[0]["labels"] == ["a", "b"]


def test_too_few_rows_to_hold_one_of_each_label_out(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", some(6, ["a", "b", "c"]))
    assert "6 rows cannot be split at 0.2" in refused(tmp_path / "work", recipe(path))


def test_a_classifier_needs_two_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", some(10, ["a"]))
    assert refused(tmp_path / "work", recipe(path)) == (
        f"data.source: {path} has only the label 'a'; a classifier needs two"
    )


def test_labels_are_renamed_and_two_can_become_one(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", some(60, ["1", "2", "3"]))
    summary, _ = run(tmp_path / "work", recipe(path, labels={1: "bad", 2: "bad", "3": "good"}))
    assert summary["labels"] == ["bad", "good"]
    assert summary["rows_by_label"]["train"] == {"bad": 32, "good": 16}


def test_a_new_name_for_a_label_that_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", some(60, ["1", "2", "3"]))
    assert refused(tmp_path / "work", recipe(path, labels={"1": "bad", "4": "good"})) == (
        f"data.labels: no row of {path} has the label '4'; its labels are '1', '2', '3'"
    )


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (["10", "9", "-1", "2"], ["-1", "2", "9", "10"]),
        (["10", "9", "x"], ["10", "9", "x"]),
        (["05", "5"], ["05", "5"]),
        (["--5", "4"], ["--5", "4"]),
        (["1.5", "1"], ["1", "1.5"]),
        (["9" * 5000, "1"], ["1", "9" * 5000]),
    ],
)
def test_labels_that_are_whole_numbers_are_in_their_order(labels: list[str], order: list[str], tmp_path: Path) -> None:
    assert run(tmp_path / "work", recipe(write(tmp_path / "rows.csv", some(20, labels))))[0]["labels"] == order


def test_numbers_of_every_type_are_labels(tmp_path: Path) -> None:
    rows = [{"text": f"text {number}", "label": [1, 1.0, "1", 2, 2.5, True][number % 6]} for number in range(60)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    summary, _ = run(tmp_path / "work", recipe(tmp_path / "rows.jsonl"))
    assert summary["labels"] == ["1", "2", "2.5", "True"]
    assert summary["rows_by_label"]["train"]["1"] == 24


BAD = {
    '{"text": "", "label": "a"}': "column 'text' is empty",
    '{"text": "  ", "label": "a"}': "column 'text' is empty",
    '{"text": 5, "label": "a"}': "column 'text' is not a text (int)",
    '{"text": null, "label": "a"}': "column 'text' is not a text (NoneType)",
    '{"label": "a"}': "column 'text' is not a text (NoneType)",
    '{"text": "\\ud800 half", "label": "a"}': "column 'text' holds half of a surrogate pair",
    '{"text": "x", "label": "\\ud800"}': "column 'label' holds half of a surrogate pair",
    '{"text": "x", "label": " "}': "column 'label' has no label (str)",
    '{"text": "x", "label": null}': "column 'label' has no label (NoneType)",
    '{"text": "x"}': "column 'label' has no label (NoneType)",
    '{"text": "x", "label": NaN}': "column 'label' has no label (nan)",
    '{"text": "x", "label": ["a"]}': "column 'label' has no label (list)",
}


@pytest.mark.parametrize(("row", "problem"), BAD.items())
def test_a_row_that_cannot_be_used_is_named_or_dropped(row: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = [json.dumps({"text": text, "label": label}) for text, label in some(20)]
    path.write_text("\n".join([*good[:10], row, *good[10:]]))
    assert refused(tmp_path / "work", recipe(path)) == (
        f"{path}, rows.jsonl line 11: {problem}; fix the row, or set data.invalid_rows to drop"
    )
    summary, _ = run(tmp_path / "work", recipe(path, invalid_rows="drop"))
    reason = problem.partition(" (")[0]
    assert summary["dropped"] == {reason: {"rows": 1, "samples": ["rows.jsonl line 11"]}}
    assert sum(summary["rows"].values()) == 20


def test_only_a_few_dropped_rows_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", [*some(20), *[("", "a")] * 1000])
    dropped = run(tmp_path / "work", recipe(path, invalid_rows="drop"))[0]["dropped"]
    assert dropped == {
        "column 'text' is empty": {"rows": 1000, "samples": [f"rows.csv line {line}" for line in (22, 23, 24)]}
    }


def test_a_file_without_one_usable_row(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", [("", "a"), ("x", "")])
    assert refused(tmp_path / "work", recipe(path, invalid_rows="drop")) == (
        f"data.source: {path} has no usable row (1 column 'text' is empty, 1 column 'label' has no label)"
    )


def test_an_empty_second_text_is_refused(tmp_path: Path) -> None:
    columns = {"text": "first", "text_pair": "second"}
    path = write(tmp_path / "rows.csv", [("a", "", "x")], ("first", "second", "label"))
    assert "column 'second' is empty" in refused(tmp_path / "work", recipe(path, columns=columns))
    rows = [(f"a {number}", f"b {number}", "xy"[number % 2]) for number in range(20)]
    run(tmp_path / "work", recipe(write(path, rows, ("first", "second", "label")), columns=columns))
    table = pq.read_table(tmp_path / "work/train.parquet")
    assert table["text_pair"].to_pylist() == [text.replace("a", "b") for text in table["text"].to_pylist()]


def test_row_limits(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", some(100))
    limited, split = run(tmp_path / "work", recipe(path, rows={"train": 30, "test": 5}))
    assert limited["rows"] == {"train": 30, "test": 5}
    whole, everything = run(tmp_path / "work", recipe(path, rows={"train": 1000}))
    assert whole["rows"] == {"train": 80, "test": 20}
    assert set(split["test"]) < set(everything["test"])
    assert set(split["train"]) < set(everything["train"])


def test_a_limit_that_leaves_a_label_nothing_to_train_on(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", [*some(400), *[(f"rare {number}", "c") for number in range(5)]])
    message = refused(tmp_path / "work", recipe(path, rows={"train": 20}))
    assert message.startswith(
        f"{path}: label 'c' has 1 test rows and none to train on: add rows, raise data.rows.train"
    )


def test_labels_that_only_the_held_out_split_has(tmp_path: Path) -> None:
    """As -1 where the labels of a benchmark are secret."""
    import pyarrow as pa

    hub = write_hub(tmp_path / "yelp", train=30, test=9)
    secret = pa.table({"label": pa.array([-1] * 9, pa.int64()), "text": [f"secret {number}" for number in range(9)]})
    pq.write_table(secret, hub / "yelp_review_full/test-00000-of-00001.parquet")
    assert "label '-1' has 9 test rows and none to train on" in refused(
        tmp_path / "work", recipe(hub, split={"test": "test"})
    )


def test_a_chunk_of_rows_is_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "rows.csv", some(50))
    whole = run(tmp_path / "work", recipe(path))
    monkeypatch.setattr(pool, "CHUNK_ROWS", 7)
    assert run(tmp_path / "work", recipe(path)) == whole


def test_a_null_byte_does_not_make_two_rows_one() -> None:
    assert row_key_with_label("a", "b") != row_key_with_label("a\0b", "")


def test_progress_is_told(tmp_path: Path) -> None:
    told: dict[str, list[int]] = {}

    class Counting(Quiet):
        def task(self, description: str, total: int | None) -> Any:
            return contextlib.nullcontext(told.setdefault(description, []).append)

    (tmp_path / "work").mkdir()
    source = recipe(write(tmp_path / "rows.csv", some(2500)))
    data.run(Context(source, tmp_path / "work", {}, Counting()))
    assert told == {
        "reading rows": [1000, 1000, 500],
        "looking for near duplicates": [1000, 1000, 500],
        "judging labels": [],
        "reading tokens": [],
    }


def test_near_duplicates_of_a_hubs_held_out_rows_leave_training(tmp_path: Path) -> None:
    import pyarrow as pa

    hub = write_hub(tmp_path / "yelp", train=30, test=9)
    long = [" ".join(f"{number}x{place}" for place in range(30)) for number in range(12)]
    for split, form in (("train", "{}!"), ("test", "{}")):
        file = hub / f"yelp_review_full/{split}-00000-of-00001.parquet"
        labels = pa.array([number % 3 for number in range(12)], pa.int64())
        more = pa.table({"label": labels, "text": [form.format(text) for text in long]})
        pq.write_table(pa.concat_tables([pq.read_table(file).select(["label", "text"]), more]), file)
    summary, _ = run(tmp_path / "work", recipe(hub, split={"test": "test"}))
    assert summary["rows"] == {"train": 30, "test": 21}
    assert summary["dropped"]["nearly the same as a test row"]["rows"] == 12
    assert summary["split"]["kind"] == "hub"
