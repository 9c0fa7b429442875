"""The top of a report: how the training went, in words, and the commands that do it again."""

import re
from pathlib import Path

import pytest

from training.pipeline.pipeline import STAGES
from training.pipeline.results import DistilledFrom, Pruned
from training.recipe.file import load_recipe
from training.report.facts import Facts, facts_of
from training.report.head import commands_of, served_of, what_of

NAMES = tuple(stage.name for stage in STAGES if not stage.only_if)
REVISION = "0123456789abcdef0123456789abcdef01234567"
PAGE = Path(__file__).parents[3] / "docs/training/several-processes.md"
(LAUNCHED,) = re.findall(r"^(accelerate launch .* -m bentune) ", PAGE.read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def facts(tiny_run: Path, tiny_recipe: Path) -> Facts:
    return facts_of(load_recipe(tiny_recipe).recipe, {name: tiny_run / name for name in NAMES})


def told(facts: Facts, **training: object) -> dict[str, str]:
    assert facts.training
    update = {"training": facts.training.model_copy(update=training)}
    return dict(what_of(facts.model_copy(update=update), REVISION))


def test_how_the_training_went(facts: Facts) -> None:
    assert facts.training
    plain = told(facts)
    assert plain["training"] == f"{facts.training.steps} steps of 16 rows, epochs 10"
    assert plain["computed in"] == "fp32 in 1 process, seed 42"
    assert {"learned from", "pruned (heads)"}.isdisjoint(plain)
    stopped = told(facts, stopped_early=True, best_step=40, processes=2, precision="bf16")
    assert stopped["training"].endswith("epochs 10, stopped early; the weights of step 40 were kept")
    assert stopped["computed in"] == "bf16 in 2 processes, seed 42"
    pruned = Pruned(
        kind="heads",
        amount=0.25,
        parameters_before=1000,
        parameters=900,
        zeros=0.25,
        heads=1,
        heads_before=4,
        learning_rate=0.001,
        steps=7,
        resumed_at_step=0,
        best_step=None,
        loss=0.5,
        curve=[],
    )
    smaller = told(facts, teacher=DistilledFrom(source="big:1", sha256="", training_accuracy=0.987), pruned=pruned)
    assert smaller["learned from"] == "big:1, which answers 98.7% of the training rows as they are labelled"
    assert smaller["pruned (heads)"] == (
        "1 of 4 heads are gone, 900 of 1,000 weights are left, 25.0% of the linear ones are zero, tuned again in 7 "
        "steps at 0.001"
    )


def test_a_run_that_stopped_at_training_names_its_hardware(tiny_run: Path, tiny_recipe: Path) -> None:
    stages = {name: tiny_run / name for name in ("data", "train")}
    facts = facts_of(load_recipe(tiny_recipe).recipe, stages)
    assert facts.training
    assert facts.training.hardware
    cpu = facts.training.hardware.cpu
    assert dict(what_of(facts, REVISION))["trained on"].endswith(
        f"{cpu.model}, {cpu.cores} core{'s' * (cpu.cores > 1)}, {' '.join(cpu.isa)}"
    )
    assert "runtime plan for" not in dict(what_of(facts, REVISION))


@pytest.mark.parametrize(
    ("training", "parent", "expected"),
    [
        ({"processes": 1}, None, "bentune run 'my runs/recipe.yaml' --new"),
        ({"processes": 2}, None, "torchrun --nproc-per-node 2 -m bentune run 'my runs/recipe.yaml' --new"),
        ({"processes": 2, "sharded": True}, None, f"{LAUNCHED} run 'my runs/recipe.yaml' --new"),
        ({"processes": 1}, "tiny:1", "bentune retrain 'my runs/recipe.yaml' --from tiny:1 --new"),
    ],
)
def test_the_commands_that_do_it_again(
    training: dict[str, object], parent: str | None, expected: str, facts: Facts
) -> None:
    assert facts.training
    recipe = facts.recipe.model_copy(update={"parent": parent})
    given = facts.model_copy(update={"training": facts.training.model_copy(update=training), "recipe": recipe})
    lines = commands_of(given, REVISION, "my runs/recipe.yaml").splitlines()
    assert lines[:2] == [f"git checkout {REVISION} && make install && . .venv/bin/activate", expected]
    of_wheel = commands_of(given, "bentune 1.2; rm -rf ~", "recipe.yaml").splitlines()
    assert of_wheel[0] == "pip install 'bentune[train]==1.2; rm -rf ~'"


def test_what_is_sent_is_of_the_kind_that_is_classified(facts: Facts) -> None:
    url = "curl -s http://localhost:3000/predict"
    text, image = (
        commands_of(facts.model_copy(update={"recipe": one}), REVISION, "recipe.yaml").splitlines()[-1]
        for one in (facts.recipe, facts.recipe.model_copy(update={"task": "image-classification"}))
    )
    assert text == f"{url} -H 'Content-Type: application/json' -d '{{\"inputs\": \"a text\"}}'"
    assert image == f"{url} -F file=@image.png"


def test_what_is_served_and_what_that_changes(facts: Facts) -> None:
    plan = facts.plan
    assert plan
    found = plan.checks[0].model_copy(
        update={
            "variant": "int8-static",
            "rows": 400,
            "label_flips": 3,
            "accuracy_loss": 0.25,
            "loss_low": -0.5,
            "loss_high": 1.0,
        }
    )
    expected = (
        "Served is int8-static on CPU: of 400 test rows 3 get another label than from fp32, and it loses 0.25 "
        "points of accuracy (-0.50 to 1.00)."
    )
    assert served_of(plan.model_copy(update={"variant": "int8-static", "checks": (found,)})) == expected
    assert served_of(plan) == "Served is fp32 on CPU."
