"""The page: its numbers are the evidence's, nothing from outside is markup, and it needs no other file."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from comparisons import comparison
from page import Page
from row_report import row_report

from bentune.bundle.verdict import Difference
from bentune.quality.statistics.bootstrap import Interval
from rollout.compare.tables import notes, numbers, slice_numbers
from training.data.report import DataReport, DoubtfulRow
from training.pipeline.pipeline import STAGES
from training.pipeline.results import CurvePoint, DistilledFrom, DoubtfulLabels, Dropped, TrainedRows
from training.prove.evaluation import Compressed, Mistake, Scaled, Slice
from training.recipe.data import RowLimits
from training.recipe.file import load_recipe
from training.recipe.train import AugmentSettings
from training.report.facts import Facts, Judgement, facts_of
from training.report.page import page_of
from training.report.tables import MOST_LABELS
from training.search.result import SearchResult, Tried

NAMES = tuple(stage.name for stage in STAGES if not stage.only_if)

NASTY = "<script>alert('x')</script>\"><img src=x onerror=alert(1)> $\\frac & `code`"
REVISION = "0123456789abcdef0123456789abcdef01234567"


def rendered(facts: Facts, missing: list[str] | None = None, revision: str = REVISION) -> Page:
    return Page(page_of(facts, missing or [], {"python": "3.11.1"}, revision, "runs/tiny/1/recipe.yaml"))


@pytest.fixture(scope="module")
def facts(tiny_run: Path, tiny_recipe: Path) -> Facts:
    return facts_of(load_recipe(tiny_recipe).recipe, {name: tiny_run / name for name in NAMES})


@pytest.fixture(scope="module")
def page(facts: Facts) -> Page:
    return rendered(facts)


def stage(run: Path, name: str, file: str) -> dict:
    return json.loads((run / name / file).read_text())


def test_metrics_before_and_after_with_their_intervals(page: Page, tiny_run: Path) -> None:
    evaluation = stage(tiny_run, "evaluate", "evaluation.json")
    rows = page.table("test rows; behind each value")
    for name, key in (("accuracy", "accuracy"), ("macro F1", "macro_f1")):
        base, tuned, change = (evaluation[side][key] for side in ("base", "tuned", "difference"))
        expected = [f"{100 * v['value']:.1f}% {100 * v['low']:.1f}% to {100 * v['high']:.1f}%" for v in (base, tuned)]
        assert rows[name][:2] == expected
        points = [f"{100 * change[end]:+.1f}" for end in ("value", "low", "high")]
        assert rows[name][2] == f"{points[0]} points, {points[1]} to {points[2]}"
    loss = evaluation["tuned"]["log_loss"]
    assert rows["log loss"][1] == f"{loss['value']:.3f} {loss['low']:.3f} to {loss['high']:.3f}"
    by_label = page.table("label by label")
    for label, one in evaluation["tuned"]["per_class"].items():
        assert by_label[label][0] == str(one["support"])
        assert by_label[label][2].startswith(f"{100 * one['recall']['value']:.1f}%")
    for row in evaluation["changed"]:
        assert " ".join(row["text"].split()) in page.text
        said = f"label {row['gold']}; before {row['base']}, after {row['tuned']} ({100 * row['confidence']:.0f}% sure)"
        assert said in page.text


def test_the_confusion_matrix_has_every_count(page: Page, tiny_run: Path) -> None:
    tuned = stage(tiny_run, "evaluate", "evaluation.json")["tuned"]
    rows = page.table("a column for each that the tuned model predicts")
    for number, (label, counts) in enumerate(zip(tuned["labels"], tuned["confusion"], strict=True), 1):
        assert rows[f"{number} {label}"] == [str(count) for count in counts]
    shares = [float(found) for found in re.findall(r"--share: ([0-9.]+)", page.html)]
    assert shares[: len(tuned["labels"])] == [
        pytest.approx(count / sum(tuned["confusion"][0]), abs=1e-3) for count in tuned["confusion"][0]
    ]


def test_calibration_slices_and_mistakes(facts: Facts, tiny_run: Path) -> None:
    tuned = stage(tiny_run, "evaluate", "evaluation.json")["tuned"]
    accuracy, error = Interval(value=0.75, low=0.5, high=0.9), Interval(value=0.2, low=0.1, high=0.3)
    one = Slice(
        by="country",
        value=NASTY,
        rows=8,
        small=True,
        metrics={"accuracy": accuracy, "macro_f1": accuracy, "calibration_error": error},
    )
    wrong = Mistake(text=NASTY, origin="row 7", gold="food", predicted="tool", confidence=0.97, gold_score=0.02)
    assert facts.evaluation
    update = {"slices": [one], "mistakes": [wrong]}
    page = rendered(facts.model_copy(update={"evaluation": facts.evaluation.model_copy(update=update)}))
    ((name, cells),) = page.table("parts of the test rows").items()
    assert (name, cells[:2]) == (f"country: {NASTY} (few rows: mostly luck)", ["8", "75.0% 50.0% to 90.0%"])
    assert "row 7: label food (2%), predicted tool (97% sure)" in page.text
    assert "<script" not in page.html
    error = tuned["calibration"]["error"]
    assert f"calibration error is {100 * error['value']:.1f}%" in " ".join(page.text.split())
    (curve,) = [alt for alt in page.attributes("aria-label") if "by its confidence" in alt]
    assert curve.count(" rows)") == sum(one["rows"] > 0 for one in tuned["calibration"]["bins"])


def test_what_was_trained_on_what(page: Page, facts: Facts, tiny_run: Path, tiny_recipe: Path) -> None:
    data, train = (stage(tiny_run, name, "stage.json")["summary"] for name in ("data", "train"))
    artifacts = stage(tiny_run, "package", "artifacts.json")
    for known in (
        data["fingerprint"],
        train["base_sha256"],
        f"{train['parameters']['trainable']:,} of {train['parameters']['total']:,} trained",
        facts.recipe_digest,
        REVISION,
        artifacts["model"],
        artifacts["digest"],
        facts.recipe.model,
    ):
        assert known in page.text
    rows = page.table("Rows by label and part")
    for label in data["labels"]:
        assert rows[label][:2] == [str(data["rows_by_label"][part][label]) for part in ("train", "test")]
    assert rows["all"][:2] == [str(data["rows"][part]) for part in ("train", "test")]
    curve = page.table("What was logged, by step")
    assert list(curve) == [str(point["step"]) for point in train["curve"]]
    assert "bentune run runs/tiny/1/recipe.yaml --new" in page.text
    assert f"git checkout {REVISION} && make install" in page.text
    assert f"bentune serve {artifacts['bento']}" in page.text


def test_what_was_found_in_the_rows(facts: Facts) -> None:
    drawn = facts.recipe.data.model_copy(update={"rows": RowLimits(train=12)})
    recipe = facts.recipe.model_copy(update={"data": drawn})
    page = rendered(facts.model_copy(update={"rows": row_report(), "recipe": recipe}))
    assert "drawn with the seed 3. At most 12 to train on were drawn." in page.text
    assert (
        "21 rows were read and 15 are used. Held out are whole groups by customer, drawn with the seed 3." in page.text
    )
    assert page.table("What cleaning found") == {
        "HTML tags or entities": ["fixed", "4", "row 3: <b>a cat → a cat"],
        "empty": ["left out", "1", ""],
    }
    pair = "row 9 (a cat): a cata cat (a cat): a cat"
    assert page.table("Rows that are like others") == {
        "nearly the same as a test row": ["2", pair],
        "the same as another row, and another label": ["1", pair],
    }
    (lengths,) = [rows for caption, rows in page.tables.items() if "How long the rows are" in caption]
    assert lengths[0] == ["training", "words", "2", "9", "14", "1,234"]
    assert len(lengths) == 4
    assert "Rows that were left out" not in page.tables


def test_labels_that_are_probably_wrong(facts: Facts) -> None:
    assert facts.data
    judged = DoubtfulLabels(
        rows=300, judged=240, accuracy=0.97, found={"train": 4, "test": 1}, removed=4, not_judged=None, first=[]
    )
    row = DoubtfulRow(split="train", origin="row 9", text="a cat " * 90, label="food", suggested="animal", score=0.012)
    data = facts.data.model_copy(update={"doubtful_labels": judged})
    page = rendered(facts.model_copy(update={"data": data, "doubtful": (row,)}))
    words = " ".join(page.text.split())
    assert "4 training rows, 1 test row of 240 that were judged (there are 300)" in words
    assert (
        "gets 97% of the labels right in rows that it never saw. 4 of the training rows were left out for it." in words
    )
    ((name, cells),) = page.table("most doubtful").items()
    assert (name, cells[:3]) == ("row 9 (training)", ["food", "animal", "1.2%"])
    assert cells[3].startswith("a cat a cat")
    assert len(cells[3]) < 170
    reason = judged.model_copy(update={"found": {}, "accuracy": None, "not_judged": "two labels have few rows"})
    data = facts.data.model_copy(update={"doubtful_labels": reason})
    assert "were not judged: two labels have few rows." in rendered(facts.model_copy(update={"data": data})).text


def test_what_training_saw(facts: Facts) -> None:
    assert facts.training
    assert facts.training.training_rows
    assert "What training saw" not in rendered(facts).text
    by_label = {"given": {"animal": 80, "food": 20}, "trained": {"animal": 80, "food": 80}}
    seen = TrainedRows(rows=160, perturbed=60, by_label=by_label, weights={"animal": 0.5, "food": 2.0})
    page = rendered(facts.model_copy(update={"training": facts.training.model_copy(update={"training_rows": seen})}))
    assert "60 perturbed copies" in page.text
    assert page.table("Training rows by label") == {
        "animal": ["80", "80", "0.50"],
        "food": ["20", "80", "2.00"],
        "all": ["100", "160", ""],
    }


def test_what_training_saw_of_images(facts: Facts) -> None:
    def page(**augment: object) -> str:
        train = facts.recipe.train.model_copy(update={"augment": AugmentSettings.model_validate(augment)})
        recipe = facts.recipe.model_copy(update={"task": "image-classification", "train": train})
        found = rendered(facts.model_copy(update={"recipe": recipe}))
        assert ("Training rows by label" in " ".join(found.tables)) == bool(augment)
        return found.text

    assert "What training saw" not in page()
    text = page(rotation=10, crop=0.8, flip="both")
    assert "What training saw" in text
    assert (
        "balance none, and in every epoch another view of each image, turned by up to 10 degrees either way (rotation),"
        " cut to a part of at least 80% of its area (crop), mirrored horizontally and vertically, each half of the time"
        " (flip). Test"
    ) in text
    assert "another view of each image, mirrored vertically half of the time (flip)." in page(flip="vertical")


def test_the_learning_curves_have_every_validation_metric(facts: Facts) -> None:
    point = {"step": 20, "epoch": 1.0, "eval_loss": 0.5, "eval_accuracy": 0.8, "eval_mcc": 0.7}
    assert facts.training
    curve = [*facts.training.curve, CurvePoint.model_validate(point)]
    page = rendered(
        facts.model_copy(update={"training": facts.training.model_copy(update={"curve": curve, "best_step": 20})})
    )
    (row,) = [row for row in page.tables["What was logged, by step"] if row[3]]
    assert row == ["20", "1.00", "", "0.5", "0.8", "0.7", ""]
    (metrics,) = [alt for alt in page.attributes("aria-label") if "Metrics of the validation rows" in alt]
    assert "Matthews correlation from 0.7 at step 20" in metrics
    assert metrics.endswith("the weights of step 20 were kept")
    assert "the weights of step 20 did best on the validation rows" in page.text


def test_larger_models_stand_beside_the_base_and_the_tuned_one(facts: Facts) -> None:
    tested = facts.evaluation
    assert tested
    larger = {
        "teacher": Compressed(metrics=tested.tuned, difference=tested.difference),
        "dense": Compressed(metrics=tested.base, difference=tested.difference),
    }
    page = rendered(facts.model_copy(update={"evaluation": tested.model_copy(update={"compressed": larger})}))
    plain = rendered(facts).table("test rows; behind each value")["accuracy"]
    before, after, change = plain
    row = page.table("test rows; behind each value")["accuracy"]
    assert row == [before, after, before, after, change]
    headings = page.html[page.html.index('<th scope="col">metric</th>') :][:300]
    assert re.findall(r">([^<]+)</th>", headings)[1:6] == ["before", "teacher", "before pruning", "after", "change"]
    changes = page.table("What changed from the larger models")
    assert changes.keys() == {"accuracy", "macro F1", "log loss"}
    assert changes["accuracy"] == [change, change]


def test_what_the_temperature_did(facts: Facts) -> None:
    tested, fall = facts.evaluation, Difference(value=-0.013, low=-0.02, high=0.001)
    assert tested
    scaled = Scaled(
        temperature=1.234,
        rows=30,
        before=tested.base.calibration,
        log_loss_before=tested.base.log_loss,
        brier_before=tested.base.brier,
        error=fall,
    )
    page = rendered(facts.model_copy(update={"evaluation": tested.model_copy(update={"temperature": scaled})}))
    assert "a temperature of 1.234, fitted on 30 validation rows" in page.text
    rows = page.table("What the temperature did")
    errors = [one.calibration.error.value for one in (tested.base, tested.tuned)]
    assert [cell.partition("%")[0] for cell in rows["calibration error"]] == [f"{100 * one:.1f}" for one in errors]
    assert "changed by -1.3 points, -2.0 to +0.1" in page.text
    (curve,) = [alt for alt in page.attributes("aria-label") if "before and after the temperature" in alt]
    assert ("after: " in curve, ". before: " in curve) == (True, True)


def test_the_search(facts: Facts) -> None:
    def tried(number: int, value: float | None, rate: float) -> Tried:
        state = "complete" if value is not None else "pruned"
        return Tried(number=number, state=state, value=value, values={"train.learning_rate": rate}, seconds=2.5)

    trials = [tried(0, 0.5, 0.1), tried(1, None, 1.0), tried(2, 0.75, facts.recipe.learning_rate)]
    found = SearchResult(
        fingerprint="f",
        metric="macro_f1",
        direction="maximize",
        rows={"train": 192, "validation": 48},
        trials=trials,
        best=trials[2],
        own=0,
    )
    page = rendered(facts.model_copy(update={"search": found}))
    assert (
        "3 trials were trained on 192 of the training rows and measured on 48 others, for the highest macro F1"
        in page.text
    )
    assert page.tables["Trials, the best first"] == [
        ["3", "0.7500", "0.005", "2.5", "the best, this run"],
        ["1", "0.5000", "0.1", "2.5", "the searched recipe's own"],
        ["2", "pruned", "1", "2.5", ""],
    ]


def judgement() -> Judgement:
    found = comparison(reasons=[f"it is {NASTY}"])
    return Judgement(
        verdict=found.verdict, notes=notes(found), numbers=numbers(found), slices=list(map(slice_numbers, found.slices))
    )


def test_the_comparison_with_what_is_served(facts: Facts) -> None:
    page = rendered(facts.model_copy(update={"judged": judgement()}))
    assert "NEED MORE ROWS: compared with pets:1 on 40 rows" in " ".join(page.text.split())
    assert "1,240 are needed" in page.text
    assert page.table("Both on the same rows")["accuracy"] == ["90.00%", "92.00%", "-2.00 [-5.00, +1.00] points"]
    ((name, cells),) = page.table("only one of the two gets right").items()
    assert (name, cells[:2]) == ("set: <script>alert('x')</script>", ["40", "+1 −2"])
    assert page.headings[1][1] == "Compared with what is served"


def test_parity_and_plan(page: Page, tiny_run: Path) -> None:
    rows = page.table("Differences of logits")
    for hop in stage(tiny_run, "verify", "parity.json")["hops"]:
        assert rows[hop["hop"]][0] == f"{hop['largest_difference']:.4g}"
        assert rows[hop["hop"]][3] == f"{hop['label_flips']} of {hop['rows']}"
    plan = stage(tiny_run, "plan", "plan.json")
    (measured,) = [rows for caption, rows in page.tables.items() if "What was measured" in caption]
    assert [row[4] for row in measured] == [f"{entry['inputs_per_second']:.1f}" for entry in plan["measured"]]
    assert "Accuracy and speed of each variant" in page.text


def test_it_needs_no_other_file_and_no_script(page: Page) -> None:
    assert {"script", "link", "img", "iframe", "object", "image"}.isdisjoint(tag for tag, _ in page.elements)
    assert page.attributes("src") == []
    links = [*page.attributes("href"), *page.attributes("xlink:href")]
    assert links
    assert all(link.startswith("#") for link in links)
    assert all(re.match("url\\(#", found) for found in re.findall(r"url\([^)]*", page.html))
    assert "@import" not in page.html
    assert not any("://" in (value or "") for _, attributes in page.elements for value in attributes.values())
    # Every reference is to an element that is there, once.
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links} | set(re.findall(r"url\(#([^)]*)\)", page.html)) <= set(ids)


def test_it_can_be_read_without_seeing_it(page: Page) -> None:
    assert dict(page.elements)["html"] == {"lang": "en"}
    levels = [level for level, _ in page.headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert page.uncaptioned == 0
    drawings = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert len(drawings) == 6  # two of the rows, loss, learning rate, calibration, Pareto
    assert all(one["role"] == "img" and len(one["aria-label"] or "") > 20 for one in drawings)
    assert any("training rows from" in (one["aria-label"] or "") for one in drawings)
    assert all(attributes.get("scope") in {"col", "row"} for tag, attributes in page.elements if tag == "th")
    assert {href[1:] for href in page.attributes("href")} <= set(page.attributes("id"))


@pytest.mark.parametrize("rows", [None, row_report(NASTY)], ids=["counts", "rows"])
def test_texts_from_outside_are_never_markup(rows: DataReport | None, facts: Facts, page: Page) -> None:
    hostile = facts.model_dump_json()
    assert facts.evaluation
    for word in ("animal", facts.recipe.data.source, facts.recipe.model, facts.evaluation.changed[0].text):
        hostile = hostile.replace(json.dumps(word), json.dumps(NASTY))
    assert hostile.count(json.dumps(NASTY)) > 8
    changed = Facts.model_validate_json(hostile)
    assert changed.data
    assert changed.training
    data = changed.data.model_copy(update={"dropped": {NASTY: Dropped(rows=1, samples=[NASTY])}})
    training = changed.training.model_copy(
        update={
            "warnings": [NASTY],
            "curve": [CurvePoint.model_validate({"step": 1, "epoch": 1, "loss": 1, f"eval_{NASTY}": 0.5})],
            "teacher": DistilledFrom(source=NASTY, sha256="", training_accuracy=1),
        }
    )
    doubtful = DoubtfulRow(split=NASTY, origin=NASTY, text=NASTY, label=NASTY, suggested=NASTY, score=0)
    tried = Tried(number=0, state="complete", value=1, values={NASTY: NASTY}, seconds=1, reason=NASTY)
    search = SearchResult(
        fingerprint="",
        metric=NASTY,
        direction="minimize",
        rows={"train": 1, "validation": 1},
        trials=[tried],
        best=tried,
        own=0,
    )
    more = {"doubtful": (doubtful,), "search": search, "judged": judgement()}
    changed = changed.model_copy(update={"data": data, "rows": rows, "training": training} | more)
    found = rendered(changed, [NASTY], f"bentune {NASTY}")
    assert {tag for tag, _ in found.elements} - {tag for tag, _ in page.elements} <= {"div", "code", "br", "b"}
    assert found.attributes("onerror") == found.attributes("src") == []
    assert found.text.count("<script>alert('x')</script>") > 12
    assert "<script" not in found.html


def test_many_labels_are_drawn_and_the_worst_pairs_named(facts: Facts) -> None:
    labels = [f"label {number}" for number in range(MOST_LABELS + 1)]
    matrix = [[9 if gold == predicted else 0 for predicted in range(len(labels))] for gold in range(len(labels))]
    matrix[2][5] = 7
    matrix[1][0] = 3
    assert facts.evaluation
    tuned = facts.evaluation.tuned.model_copy(update={"labels": labels, "confusion": matrix})
    page = rendered(facts.model_copy(update={"evaluation": facts.evaluation.model_copy(update={"tuned": tuned})}))
    assert not any("a column for each" in caption for caption in page.tables)
    pairs = next(rows for caption, rows in page.tables.items() if "mistaken most often" in caption)
    assert pairs == [["label 2", "label 5", "7"], ["label 1", "label 0", "3"]]
    assert any("117 of 127 rows" in (attributes.get("aria-label") or "") for _, attributes in page.elements)


@pytest.mark.parametrize("last", ["data", "evaluate", "verify"])
def test_a_run_that_stopped_has_the_sections_of_its_stages(last: str, tiny_run: Path, tiny_recipe: Path) -> None:
    done = NAMES[: NAMES.index(last) + 1]
    page = rendered(facts_of(load_recipe(tiny_recipe).recipe, {name: tiny_run / name for name in done}))
    sections = {title for level, title in page.headings if level == 2}
    expected = {"What was trained", "The data", "To do it again"}
    if last != "data":
        expected |= {"Learning curves", "Before and after", "Confusion matrix", "Calibration"}
    assert sections - {"The most confident mistakes"} == expected | (
        {"The parity chain"} if last == "verify" else set()
    )
    assert {f"#{value}" for value in page.attributes("id")} >= set(page.attributes("href"))


def test_what_to_mind_comes_first(facts: Facts) -> None:
    assert facts.plan
    assert facts.training
    busy = facts.model_copy(
        update={
            "plan": facts.plan.model_copy(update={"taken": 0.71}),
            "training": facts.training.model_copy(update={"warnings": ["it knows its training rows by heart"]}),
        }
    )
    text = rendered(busy, ["package"], f"{REVISION}-dirty").text
    first = text[: text.index("What was trained")]
    for words in (
        "it knows its training rows by heart",
        "71% of the cores",
        "in no commit",
        "Not in this report: package",
    ):
        assert words in first
    assert facts.data
    assert "60 test rows are too few for compare.margin" in first
    large = facts.data.model_copy(update={"rows": {"train": 1600, "test": 400}, "tokens": None})
    assert "Mind this" not in rendered(facts.model_copy(update={"plan": None, "data": large})).text


def test_the_same_facts_give_the_same_bytes(facts: Facts, page: Page) -> None:
    assert rendered(facts).html == page.html
