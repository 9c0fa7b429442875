"""Continuing a parent: what it held out is never trained on, whatever comes to the data, in whatever order."""

import csv
import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from tiny import Quiet

from bentune.bundle.errors import InputError
from bentune.bundle.seen_rows import MOST_BEFORE, SeenRows, row_key
from bentune.bundle.targets.one_label import OneLabel
from training.data import stage as data
from training.pipeline.previous_version import require_alike
from training.pipeline.stage import Context
from training.recipe.recipe import Recipe

TAG = "news:20260101-000000-abcdef"
Rows = Sequence[tuple[str, str]]


class Generation:
    """Output of the data stage, as the bundle of a version would carry it on."""

    def __init__(self, summary: dict[str, Any], work: Path, recipe: Recipe) -> None:
        self.summary, self.recipe = summary, recipe
        self.seen = SeenRows.model_validate_json((work / "rows.json").read_bytes())
        self.labels = summary["labels"]
        self.parts = {path.stem: pq.read_table(path)["text"].to_pylist() for path in work.glob("*.parquet")}
        self.labelled = {
            (row_key(row["text"]), row["label"])
            for path in work.glob("*.parquet")
            for row in pq.read_table(path, columns=["text", "label"]).to_pylist()
        }
        lines = work / "held_out.jsonl"
        self.held_out = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []

    def keys(self, *names: str) -> set[bytes]:
        return {row_key(text) for name in names for text in self.parts.get(name, [])}

    def as_parent(self, **manifest: Any) -> Any:
        shape: dict[str, Any] = {"task": "text-classification", "labels": self.labels}
        shape["target"] = OneLabel(labels=self.labels)
        shape["columns"] = SimpleNamespace(text_pair=None)
        return SimpleNamespace(
            tag=TAG,
            content="0" * 64,
            manifest=SimpleNamespace(**shape | manifest),
            rows=lambda: self.seen,
            recipe=lambda: self.recipe.model_dump(mode="json"),
        )


def train(
    rows: Rows, parent: Generation | None = None, like: dict[str, Any] | None = None, /, **more: Any
) -> Generation:
    """The data stage on these rows."""
    with tempfile.TemporaryDirectory() as folder:
        path, work = Path(folder) / "rows.csv", Path(folder) / "work"
        work.mkdir()
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
        given = {"name": "news", "task": "text-classification", "model": "m"}
        given |= {"data": {"source": str(path)} | more, "parent": None if parent is None else TAG}
        bundle = None if parent is None else parent.as_parent(**like or {})
        with mock.patch.object(data, "open_parent", return_value=bundle):
            summary = data.run(Context(Recipe.model_validate(given), work, {}, Quiet())).written()
        return Generation(summary, work, Recipe.model_validate(given))


def recipe_of(*, warm: bool) -> Recipe:
    given = {"name": "news", "task": "text-classification", "model": "m", "parent": TAG}
    return Recipe.model_validate(given | {"data": {"source": "rows.csv"}, "train": {"warm_start": warm}})


def some(first: int, count: int, labels: Sequence[str] = ("a", "b")) -> list[tuple[str, str]]:
    return [(f"text {number}", labels[number % len(labels)]) for number in range(first, first + count)]


def test_the_reference_stays_and_of_the_new_rows_a_share_of_each_label_is_held_out() -> None:
    first = train(some(0, 100))
    second = train(some(0, 150), first)
    assert second.summary["parent"] == {
        "tag": TAG,
        "content": "0" * 64,
        "reference": 20,
        "relabelled": 0,
        "fresh": 10,
        "missing": 0,
        "trained_gone": 0,
        "compared": 30,
        "trained_again": 80,
        "trained_new": 40,
    }
    assert second.summary["rows_by_label"]["test"] == {"a": 15, "b": 15}
    assert second.keys("test") >= first.keys("test")
    assert second.keys("train") >= first.keys("train")
    sets = {row["text"]: row["set"] for row in second.held_out}
    assert sorted(sets) == sorted(second.parts["test"])
    assert {row_key(text) for text, name in sets.items() if name == "reference"} == first.keys("test")
    assert all(row["label"] == "ab"[int(row["text"].split()[1]) % 2] for row in second.held_out)
    # The next version's reference is all of it.
    third = train(some(0, 150), second)
    assert third.summary["parent"]["reference"] == 30
    assert third.summary["parent"]["fresh"] == 0
    assert {row["set"] for row in third.held_out} == {"reference"}


def test_a_first_version_has_nothing_to_compare() -> None:
    first = train(some(0, 50))
    assert first.held_out == []
    assert "parent" not in first.summary


GENERATIONS = st.lists(
    st.lists(
        st.tuples(st.integers(0, 60), st.sampled_from("ab"), st.sampled_from(["{}", " {} ", "TEXT {}"])), max_size=40
    ),
    min_size=1,
    max_size=4,
)


@examples(30, ci=8)
@given(
    growth=GENERATIONS,
    order=st.randoms(use_true_random=False),
    limits=st.fixed_dictionaries({"train": st.sampled_from([None, 15]), "test": st.sampled_from([None, 6])}),
    validation=st.sampled_from([0.0, 0.25]),
)
def test_no_row_ever_moves_from_held_out_to_training_or_back(
    growth: list[list[tuple[int, str, str]]], order: random.Random, limits: dict[str, int | None], validation: float
) -> None:
    """The rows have copies in another spelling and contradicting labels.

    Limits and a validation share are included too.
    """
    more = {"rows": limits, "split": {"validation": validation}}
    rows = some(1000, 24)
    now = train(rows, **more)
    held_out, trained = now.keys("test"), now.keys("train", "validation")
    for added in growth:
        rows = rows + [
            (form.format(f"text {number}" if "TEXT" not in form else number), label) for number, label, form in added
        ]
        before, now = now, train(rows, now, **more)
        assert now.keys("test") >= before.keys("test")
        assert not now.keys("train", "validation") & held_out
        assert not now.keys("test") & trained
        held_out |= now.keys("test")
        trained |= now.keys("train", "validation")
        assert all(now.seen.trained.has(sorted(trained)))
        assert all(now.seen.held_out.has(sorted(held_out)))
        shuffled = list(rows)
        order.shuffle(shuffled)
        again = train(shuffled, before, **more)
        assert {name: sorted(map(row_key, part)) for name, part in again.parts.items()} == {
            name: sorted(map(row_key, part)) for name, part in now.parts.items()
        }
        assert again.summary["fingerprint"] == now.summary["fingerprint"]
        assert again.summary["parent"] == now.summary["parent"]


def test_a_copy_of_a_held_out_row_among_the_new_ones_is_not_trained_on() -> None:
    first = train(some(0, 100))
    copies = [(f"  {text.upper()}", "a") for text in first.parts["test"]]
    second = train([*some(0, 100), *copies, *some(500, 10)], first)
    assert second.summary["parent"]["reference"] == 20
    assert not second.keys("train") & first.keys("test")
    assert sum(reason["rows"] for reason in second.summary["dropped"].values()) == 20


@pytest.mark.parametrize("last", [False, True])
def test_the_label_that_the_parent_knew_wins_over_that_of_a_copy(last: bool) -> None:
    """The copies are of all 100 texts, held out or trained on.

    By the smaller hash alone, about half would change.
    """
    first = train(some(0, 100))
    copies = [(text.upper(), "ba"[number % 2]) for number, (text, _) in enumerate(some(0, 100))]
    rows = [*some(0, 100), *copies] if last else [*copies, *some(0, 100)]
    second = train([*rows, *some(500, 10)], first)
    assert (second.summary["parent"]["reference"], second.summary["parent"]["relabelled"]) == (20, 0)
    assert second.labelled >= first.labelled


def test_reference_rows_with_another_label_are_told_and_kept_apart() -> None:
    first = train(some(0, 1000))
    mended = set(first.parts["test"][:10])
    second = train(
        [(text, "ba"["ab".index(label)] if text in mended else label) for text, label in some(0, 1000)], first
    )
    assert (second.summary["parent"]["reference"], second.summary["parent"]["relabelled"]) == (190, 10)
    assert second.summary["parent"]["fresh"] == 0
    assert {row["text"] for row in second.held_out if row["set"] == "relabelled"} == mended
    assert second.keys("test") == first.keys("test")
    # From now on the mended label is what a version is asked.
    third = train(
        [(text, "ba"["ab".index(label)] if text in mended else label) for text, label in some(0, 1000)], second
    )
    assert (third.summary["parent"]["reference"], third.summary["parent"]["relabelled"]) == (200, 0)


def test_columns_to_slice_by_go_to_the_held_out_rows_alone(tmp_path: Path) -> None:
    first = train(some(0, 100))
    path = tmp_path / "rows.jsonl"
    values = {"year": 2024, "score": 0.5, "who": None, "when": float("nan"), "long": "x" * 500}
    path.write_text("".join(json.dumps({"text": text, "label": label} | values) + "\n" for text, label in some(0, 150)))
    recipe = Recipe.model_validate(
        {"name": "news", "task": "text-classification", "model": "m", "data": {"source": str(path)}, "parent": TAG}
        | {"compare": {"slices": ["year", "score", "who", "when", "set", "year"], "frozen": {"long": "x"}}}
    )
    with mock.patch.object(data, "open_parent", return_value=first.as_parent()):
        data.run(Context(recipe, tmp_path, {}, Quiet()))
    rows = [json.loads(line) for line in (tmp_path / "held_out.jsonl").read_text().splitlines()]
    assert len(rows) == 30
    for row in rows:
        assert row == values | {"when": None, "long": "x" * 100, **{key: row[key] for key in ("text", "label", "set")}}
    assert pq.read_table(tmp_path / "test.parquet").column_names == ["text", "text_pair", "origin", "also", "label"]


def test_a_query_that_swaps_two_labels_is_refused() -> None:
    first = train(some(0, 100))
    with pytest.raises(InputError) as caught:
        train(some(0, 150, ("b", "a")), first)
    assert "of 20 rows in the parent's test set, 20 have another label in " in str(caught.value)
    assert "and at most 5% may" in str(caught.value)
    assert "fix the labels, or start over with `bentune run`" in str(caught.value)


def test_renamed_labels_are_the_parents() -> None:
    first = train(some(0, 100))
    renamed = train(some(0, 120, ("1", "2")), first, labels={"1": "a", "2": "b"})
    assert renamed.labels == ["a", "b"]
    assert renamed.summary["parent"]["reference"] == 20


@pytest.mark.parametrize(("new", "held_out"), [(0, 0), (1, 0), (3, 1), (7, 1), (10, 2)])
def test_a_few_new_rows_are_enough(new: int, held_out: int) -> None:
    first = train(some(0, 100))
    second = train([*some(0, 100), *some(200, new, ("a",))], first)
    assert second.summary["parent"]["fresh"] == held_out
    assert second.summary["parent"]["trained_new"] == new - held_out


def test_a_limit_on_training_rows_does_not_free_the_others_to_be_held_out() -> None:
    first = train(some(0, 100))
    second = train(some(0, 100), first, rows={"train": 10})
    assert second.summary["rows"]["train"] == 10
    third = train(some(0, 100), second)
    assert third.summary["parent"]["fresh"] == 0


def test_a_limit_on_held_out_rows_bounds_the_fresh_ones_only() -> None:
    first = train(some(0, 100))
    second = train(some(0, 200), first, rows={"test": 5})
    assert second.summary["parent"]["reference"] == 20
    assert second.summary["parent"]["fresh"] == 5
    # Those that were left out are in no set: they are not trained on.
    assert second.summary["parent"]["trained_new"] == 80


def test_reference_rows_that_are_gone_are_counted_and_most_of_them_are_needed() -> None:
    first = train(some(0, 100))
    gone = set(first.parts["test"][:5])
    second = train([row for row in some(0, 100) if row[0] not in gone], first)
    assert second.summary["parent"]["missing"] == 5
    with pytest.raises(InputError) as caught:
        train(some(5000, 100), first)
    assert "of 20 rows in the parent's test set, 20 are no longer in" in str(caught.value)


def test_rows_that_only_a_warm_start_remembers_are_never_held_out() -> None:
    """They left the data before the parent was made, and come back after it."""
    first, other = train(some(0, 100)), train(some(100, 100))
    first.seen = first.seen.model_copy(update={"before": [other.seen.trained]})
    second = train(some(0, 200), first)
    assert second.keys("train") >= other.keys("train")
    # The others, which no weights know, are new: a fifth of them is held out.
    assert (second.summary["parent"]["trained_again"], second.summary["parent"]["fresh"]) == (160, 4)


def test_rows_that_left_the_data_are_counted() -> None:
    first = train(some(0, 100))
    gone = set(first.parts["train"][:7])
    assert train([row for row in some(0, 100) if row[0] not in gone], first).summary["parent"]["trained_gone"] == 7


def test_no_more_warm_starts_than_a_bundle_keeps_filters_of() -> None:
    first = train(some(0, 100))
    first.seen = first.seen.model_copy(update={"before": [first.seen.trained] * MOST_BEFORE})
    with pytest.raises(InputError, match="was started warm 100 times over rows that are gone.*start cold"):
        require_alike(first.as_parent(), recipe_of(warm=True))
    require_alike(first.as_parent(), recipe_of(warm=False))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (("a", "b", "c"), "'c' which it does not have"),
        (("a", "x"), "'b' which the data does not have"),
    ],
)
def test_other_labels_are_refused_before_anything_is_trained(labels: tuple[str, ...], words: str) -> None:
    first = train(some(0, 100))
    with pytest.raises(InputError, match=words):
        train(some(0, 120, labels), first)


def test_another_task_or_pairs_cannot_continue_it() -> None:
    first = train(some(0, 100))
    with pytest.raises(InputError, match="task: text-classification cannot continue news:.*, whose task is ranking"):
        train(some(0, 100), first, {"task": "ranking"})
    with pytest.raises(InputError, match="text_pair: news:.* takes pairs of texts, and so must what continues it"):
        train(some(0, 100), first, {"columns": SimpleNamespace(text_pair="second")})


@pytest.mark.parametrize(("before", "now"), [("show", "fix"), ("fix", "show"), ("off", "fix")])
def test_texts_are_mended_as_the_parents_were_or_not_at_all(before: str, now: str) -> None:
    """Texts that are mended in another way have other keys.

    The parent's test rows would look new, and some of them would be trained on.
    """
    first = train(some(0, 100), clean={"html": before})
    with pytest.raises(InputError, match=f"data.clean.html: news:.*give `{before}`, or start over"):
        train(some(0, 100), first, clean={"html": now})
    assert train(some(0, 110), first, clean={"html": before, "mojibake": "off"}).summary["parent"]["reference"] == 20


def long_text(number: int, form: str) -> str:
    """Return forty words that no other number has, or a near copy of them.

    Only a comparison of exact texts misses these copies.
    """
    words = [f"{number}x{place}" for place in range(40)]
    match form:
        case "points":
            return ", ".join(words) + "."
        case "upper":
            return " ".join(words).upper() + "!"
        case "one":  # 35 of 41 shingles are the same
            return " ".join([*words[:20], "another", *words[21:]])
    return " ".join(words)


COPIES = st.lists(st.tuples(st.integers(85, 115), st.sampled_from(["as it is", "points", "upper", "one"])), max_size=30)


@examples(25, ci=8)
@given(growth=st.lists(COPIES, min_size=1, max_size=3), order=st.randoms(use_true_random=False))
def test_near_duplicates_move_no_row_and_none_is_trained_on_beside_one_that_is_held_out(
    growth: list[list[tuple[int, str]]], order: random.Random
) -> None:
    rows = [(long_text(number, "as it is"), "ab"[number % 2]) for number in range(100, 140)]
    now = train(rows)
    held_out, trained = now.keys("test"), now.keys("train")
    for added in growth:
        # One label for all copies of a text: those of another are no copies.
        rows = rows + [(long_text(number, form), "ab"[number % 2]) for number, form in added]
        before, now = now, train(rows, now)
        assert now.keys("test") >= before.keys("test")
        assert not now.keys("train") & held_out
        assert not now.keys("test") & trained
        held_out |= now.keys("test")
        trained |= now.keys("train")
        numbers = {text.lower().split("x")[0] for part in now.parts.values() for text in part}
        same = {
            name: [" ".join(text.lower().strip("!.").replace(",", "").split()) for text in part]
            for name, part in now.parts.items()
        }
        # Those that differ in points and case alone are alike for certain; of one text one row is left.
        assert not set(same["train"]) & set(same["test"])
        assert all(len(part) == len(set(part)) for part in same.values())
        assert numbers == {text.lower().split("x")[0] for text, _ in rows}
        shuffled = list(rows)
        order.shuffle(shuffled)
        again = train(shuffled, before)
        assert {name: sorted(part) for name, part in again.parts.items()} == {
            name: sorted(part) for name, part in now.parts.items()
        }


def copies(texts: Sequence[str], labels: dict[str, str]) -> list[tuple[str, str]]:
    return [(text.replace(" ", ", ") + "!", labels[text]) for text in texts]


def test_a_near_copy_of_what_the_parent_knows_is_on_neither_side() -> None:
    rows = [(long_text(number, "as it is"), "ab"[number % 2]) for number in range(100)]
    labels = dict(rows)
    first = train(rows)
    added = copies([*first.parts["test"], *first.parts["train"]], labels)
    second = train([*rows, *added], first)
    assert (second.keys("train"), second.keys("test")) == (first.keys("train"), first.keys("test"))
    dropped = {reason: found["rows"] for reason, found in second.summary["dropped"].items()}
    assert dropped == {"nearly the same as a test row": 20, "nearly the same as a training row": 80}
    # When the rows that were trained on are gone, their copies are no new rows to be asked about.
    gone = train([row for row in [*rows, *added] if row[0] not in first.parts["train"]], second)
    assert gone.summary["parent"]["fresh"] == 0
    assert gone.summary["parent"]["trained_again"] == 80


def test_near_duplicates_of_the_parents_own_rows_leave_training_and_never_the_reference() -> None:
    """The parent is from before near duplicates were looked for.

    Some of its rows are alike, on one side and on both.
    """
    rows = [(long_text(number, form), "ab"[number % 2]) for number in range(60) for form in ("as it is", "points")]
    first = train(rows, near_duplicates={"action": "off"})
    second = train(rows, first)
    assert second.keys("test") == first.keys("test")
    assert second.keys("train") < first.keys("train")
    alone = {text.split("x")[0] for text in second.parts["train"]}
    assert not alone & {text.split("x")[0] for text in second.parts["test"]}
    assert len(alone) == len(second.parts["train"])
    # Rows that were trained on stay recorded and are never held out.
    assert second.seen.trained.has(sorted(first.keys("train"))).all()


def test_shown_near_duplicates_stay() -> None:
    rows = [(long_text(number, form), "ab"[number % 2]) for number in range(60) for form in ("as it is", "points")]
    shown = train(rows, near_duplicates={"action": "show"})
    assert shown.summary["dropped"] == {}
    assert sum(shown.summary["rows"].values()) == 120


def train_table(
    rows: Sequence[dict[str, Any]], parent: Generation | None = None, /, **split: Any
) -> tuple[Generation, dict[str, list[dict[str, Any]]]]:
    """As `train`, on rows with more columns; and the rows of each part."""
    with tempfile.TemporaryDirectory() as folder:
        path, work = Path(folder) / "rows.jsonl", Path(folder) / "work"
        work.mkdir()
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        given = {"name": "news", "task": "text-classification", "model": "m", "parent": TAG if parent else None}
        recipe = Recipe.model_validate(given | {"data": {"source": str(path), "split": split}})
        with mock.patch.object(data, "open_parent", return_value=parent and parent.as_parent()):
            summary = data.run(Context(recipe, work, {}, Quiet())).written()
        generation = Generation(summary, work, recipe)
    by_text = {row["text"]: row for row in rows}
    return generation, {name: [by_text[text] for text in part] for name, part in generation.parts.items()}


def of_customers(first: int, count: int, customers: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {"text": f"text {number}", "label": "ab"[number % 2], "customer": customers[number % len(customers)]}
        for number in range(first, first + count)
    ]


@examples(25, ci=8)
@given(
    growth=st.lists(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 30)), max_size=30), min_size=1, max_size=3),
    order=st.randoms(use_true_random=False),
)
def test_no_customer_is_on_two_sides_and_none_changes_sides(
    growth: list[list[tuple[int, int]]], order: random.Random
) -> None:
    rows = of_customers(1000, 100, range(100, 125))
    now, parts = train_table(rows, group="customer", validation=0.2)
    for added in growth:
        sides = [{row["customer"] for row in parts[name]} for name in parts]
        assert sum(map(len, sides)) == len(set().union(*sides))
        new = [{"text": f"new {text}", "label": "ab"[text % 2], "customer": customer} for text, customer in added]
        rows = list({row["text"]: row for row in [*new, *rows]}.values())
        order.shuffle(rows)
        held_out, trained = ({row["customer"] for row in parts[name]} for name in ("test", "train"))
        before, (now, parts) = now, train_table(rows, now, group="customer", validation=0.2)
        assert now.keys("test") >= before.keys("test")
        assert not {row["customer"] for row in parts["test"]} & trained
        assert not {row["customer"] for row in parts["train"]} & held_out


def test_new_rows_of_a_customer_go_to_the_customers_side() -> None:
    first, parts = train_table(of_customers(0, 200, range(40)), group="customer")
    held_out = {row["customer"] for row in parts["test"]}
    second, parts = train_table(of_customers(0, 400, range(40)), first, group="customer")
    assert {row["customer"] for row in parts["test"]} == held_out
    assert second.summary["parent"]["fresh"] == len(parts["test"]) - second.summary["parent"]["reference"] > 0
    assert second.summary["split"] | {"kind": "group", "groups": 40, "continued": True} == second.summary["split"]


def test_a_parent_whose_customers_are_on_both_sides_cannot_be_continued_by_customer() -> None:
    first, _ = train_table(of_customers(0, 200, range(10)))
    with pytest.raises(InputError, match="data.split.group: 'customer': 10 of its values have rows in both"):
        train_table(of_customers(0, 220, range(10)), first, group="customer")


def dated(first: int, count: int) -> list[dict[str, Any]]:
    return [
        {"text": f"text {number}", "label": "ab"[number % 2], "day": f"2026-01-{number // 10 + 1:02}"}
        for number in range(first, first + count)
    ]


def test_the_newest_are_held_out_and_of_new_rows_the_newest_of_them() -> None:
    first, parts = train_table(dated(0, 100), time="day", validation=0.25)
    assert {row["day"] for row in parts["test"]} == {"2026-01-09", "2026-01-10"}
    assert {row["day"] for row in parts["validation"]} == {"2026-01-07", "2026-01-08"}
    assert first.summary["split"]["held_out_from"] == "2026-01-09T00:00:00+00:00"
    second, parts = train_table(dated(0, 150), first, time="day")
    assert {row["day"] for row in parts["test"]} == {"2026-01-09", "2026-01-10", "2026-01-15"}
    assert second.summary["split"]["held_out_from"] == "2026-01-15T00:00:00+00:00"
    assert second.keys("test") >= first.keys("test")
    assert second.keys("train") >= first.keys("train", "validation")


def test_the_oldest_of_copies_is_kept_where_time_decides() -> None:
    """A copy of an old text among the newest would test a model trained on it."""
    copies = [row | {"text": row["text"].upper(), "day": "2026-02-01"} for row in dated(0, 10)]
    _, parts = train_table([*copies, *dated(0, 100)], time="day")
    assert {row["day"] for row in parts["test"]} == {"2026-01-09", "2026-01-10"}
