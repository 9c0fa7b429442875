"""The page of a run's report: one HTML file that needs no other, for a screen, a phone, or paper.

Texts of rows are in it, cut; all that comes from outside is escaped.
"""

import re
import shlex
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from training.data_report import DataReport
from training.evaluation import Evaluation
from training.plan_report import (
    CHECK_COLUMNS,
    ENTRY_COLUMNS,
    MOST_TAKEN,
    check_cells,
    entry_cells,
    short_provider,
    verdict,
)
from training.recipe_file import spelled_out
from training.report_facts import PARTS, Facts, spelled
from training.report_plots import Plot, curves, lengths, pareto, reliability
from training.report_tables import confusion_of, duplicate_rows, label_rows, length_rows, metric_rows

TEMPLATE = "report_page.html"
STYLE = "page.css"
SHOWN_CHARACTERS = 300
ROOMY = frozenset({"provider", "lone text ms", "padding", "rounds"})
"""Columns of what was measured that a phone goes without."""
TITLES = {
    "what": "What was trained",
    "data": "The data",
    "learning": "Learning curves",
    "before-after": "Before and after",
    "confusion": "Confusion matrix",
    "calibration": "Calibration",
    "slices": "Slices",
    "mistakes": "The most confident mistakes",
    "parity": "The parity chain",
    "plan": "The runtime plan",
    "reproduce": "To do it again",
}


class Tile(NamedTuple):
    """A number at the top of the page."""

    name: str
    value: str
    note: str


def page_of(facts: Facts, missing: Sequence[str], tools: dict[str, str], revision: str, recipe_file: str) -> str:
    """The page as HTML.

    `missing` names the stages that the facts know nothing of, `recipe_file` is where the recipe lies as it was used.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "cut": cut,
        "digits": _digits,
        "drawing": _drawing,
        "part_name": lambda name: PARTS.get(name, name),
        "percent": lambda share: f"{share:.0%}",
        "ticks": _ticks,
        "thousands": lambda number: f"{number:,}",
    }
    template = environment.from_string(files("training").joinpath(TEMPLATE).read_text(encoding="utf-8"))
    plan, tested, training = facts.plan, facts.evaluation, facts.training
    learning = curves(training.curve) if training else []
    there = {
        "data": facts.data,
        "learning": learning,
        "before-after": tested,
        "confusion": tested and tested.tuned.confusion,
        "calibration": tested,
        "slices": tested and tested.slices,
        "mistakes": tested and tested.mistakes,
        "parity": facts.parity,
        "plan": plan,
    }
    return template.render(
        style=Markup(files("service").joinpath(STYLE).read_text(encoding="utf-8")),  # noqa: S704 (our own file)
        facts=facts,
        tiles=_tiles(facts),
        cautions=_cautions(facts, missing, revision),
        contents=[(name, title) for name, title in TITLES.items() if there.get(name, True)],
        what=_what(facts, revision),
        split=_split(facts.rows) if facts.rows else "",
        lengths=lengths(facts.rows) if facts.rows else [],
        length_rows=length_rows(facts.rows) if facts.rows else [],
        duplicates=duplicate_rows(facts.rows) if facts.rows else [],
        labels=label_rows(facts.data) if facts.data else [],
        learning=learning,
        metrics=metric_rows(tested) if tested else [],
        reliability=_reliability(tested) if tested else None,
        confusion=confusion_of(tested.tuned) if tested else None,
        verdict=verdict(plan).splitlines() if plan and plan.measured else [],
        pareto=pareto(plan) if plan and plan.measured else None,
        check_columns=CHECK_COLUMNS,
        checks=[[*check_cells(one), one.problem or "pass"] for one in plan.checks] if plan else [],
        entry_columns=ENTRY_COLUMNS,
        roomy=ROOMY,
        entries=[entry_cells(one) for one in plan.measured] if plan else [],
        commands=_commands(facts, revision, recipe_file),
        recipe_yaml=spelled_out(facts.recipe),
        revision=revision,
        tools=tools,
    )


def cut(text: str) -> str:
    """One line of at most SHOWN_CHARACTERS."""
    line = " ".join(text.split())
    # A text of just so many characters was cut by who wrote it down.
    return line if len(text) < SHOWN_CHARACTERS else line[:SHOWN_CHARACTERS] + " …"


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _drawing(svg: str, alt: str) -> Markup:
    """An SVG of ours with its text for who cannot see it; what matplotlib wrote into it is escaped already."""
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1))  # noqa: S704


def _ticks(text: str) -> Markup:
    """A sentence in which `this` is code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 (escaped before)


def _tiles(facts: Facts) -> list[Tile]:
    tiles = []
    if facts.evaluation:
        for name in ("accuracy", "macro_f1"):
            base, tuned = (getattr(one, name) for one in (facts.evaluation.base, facts.evaluation.tuned))
            interval = f"{tuned.low:.1%} to {tuned.high:.1%}; before {base.value:.1%}"
            tiles.append(Tile(f"{spelled(name)}, held out", f"{tuned.value:.1%}", interval))
    elif facts.training:
        tiles.append(Tile("mean training loss", f"{facts.training.loss:.3f}", f"{facts.training.steps:,} steps"))
    if facts.training:
        count = facts.training.parameters
        note = f"of {count.total:,} weights are trained"
        tiles.append(Tile("trained", f"{count.trainable / count.total:.1%}", note))
    if facts.parity:
        hops = facts.parity.hops
        passed = sum(not hop.problems for hop in hops)
        note = f"largest logit difference {facts.parity.largest_difference:.2g}"
        tiles.append(Tile("hops that hold", f"{passed} of {len(hops)}", note))
    if facts.plan and facts.plan.measured:
        best = facts.plan.measured[0]
        note = f"{best.variant} on {short_provider(best.provider)}, {best.slots} x {best.threads} threads"
        tiles.append(Tile("texts a second", f"{best.texts_per_second:.0f}", note))
    return tiles


def _cautions(facts: Facts, missing: Sequence[str], revision: str) -> list[str]:
    cautions = list(facts.training.warnings) if facts.training else []
    if facts.parity:
        cautions += [f"hop {hop.hop}: {problem}" for hop in facts.parity.hops for problem in hop.problems]
    if facts.plan and facts.plan.taken > MOST_TAKEN:
        cautions.append(
            f"Other programs kept {facts.plan.taken:.0%} of the cores busy while the runtime plan was measured, so "
            "another variant may be the fastest."
        )
    if revision.endswith("-dirty"):
        cautions.append("The code had changes that are in no commit: its revision alone does not say what ran.")
    if missing:
        cautions.append(
            f"Not in this report: {', '.join(missing)}. Either not done yet, or done for another recipe, other rows or "
            "other hardware than now; `bentune run` does what is missing."
        )
    return cautions


def _what(facts: Facts, revision: str) -> list[tuple[str, str]]:
    recipe, data, training, packaged = facts.recipe, facts.data, facts.training, facts.packaged
    settings = recipe.method.model_dump(mode="json", exclude={"name"})
    method = ", ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in settings.items())
    rows = [("task", recipe.task), ("base model", recipe.model)]
    if training:
        rows.append(("its sha256", training.base_sha256))
        if training.base != recipe.model:
            rows.append(("started from", training.base))
    rows.append(("method", f"{recipe.method.name} ({method})" if method else recipe.method.name))
    if training:
        count = training.parameters
        rows.append(("weights", f"{count.trainable:,} of {count.total:,} trained"))
        rows.append(
            (
                "training",
                f"{training.steps:,} steps of {recipe.train.batch_size} rows, epochs {recipe.train.epochs:g}, peak "
                f"learning rate {training.learning_rate:g}, seed {recipe.seed}",
            )
        )
    rows.append(("longest text", f"{recipe.max_tokens} tokens; what is longer is cut"))
    sources = ", ".join(recipe.data.sources)
    rows.append(("rows from", sources + (f": {recipe.data.query}" if recipe.data.query else "")))
    if data:
        rows.append(("data fingerprint", data.fingerprint))
    rows += [("recipe digest", facts.recipe_digest), ("code revision", revision)]
    if facts.plan and facts.plan.cpu:
        cpu = facts.plan.cpu
        rows.append(("hardware", f"{cpu.model}, {cpu.cores} cores, {' '.join(cpu.isa)}"))
    if packaged:
        rows += [("model tag", packaged.model), ("Bento", packaged.bento), ("bundle digest", packaged.digest)]
    return rows


def _split(report: DataReport) -> str:
    """How rows were held out, in a sentence."""
    split = report.split
    how = {
        "label": f"Held out is the same share of each label, drawn with the seed {split.seed}",
        "group": f"Held out are whole groups by {split.column}, drawn with the seed {split.seed}",
        "time": f"Held out are the newest by {split.column}, from {split.held_out_from} on",
        "hub": f"Held out is the hub's own split {split.test}",
    }[split.kind]
    return f"{how}{'; rows of the version before kept their side' if split.continued else ''}."


def _reliability(tested: Evaluation) -> Plot:
    bins = [one for one in tested.tuned.calibration.bins if one.rows]
    return reliability(
        [one.confidence or 0.0 for one in bins],
        [one.accuracy or 0.0 for one in bins],
        [one.rows for one in bins],
        "How often the tuned model is right, by how sure it is",
    )


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _commands(facts: Facts, revision: str, recipe_file: str) -> str:
    commit = re.fullmatch(r"([0-9a-f]{40})(-dirty)?", revision)
    install = f"git checkout {commit[1]} && make install" if commit else f"pip install '{_requirement(revision)}'"
    tag = facts.packaged.bento if facts.packaged else facts.recipe.name
    lines = [
        install,
        f"bentune run {shlex.quote(recipe_file)} --new",
        f"bentune serve {shlex.quote(tag)}",
        "curl -s http://localhost:3000/predict -H 'Content-Type: application/json' -d '{\"inputs\": \"a text\"}'",
    ]
    return "\n".join(lines)


def _requirement(revision: str) -> str:
    return f"bentune[train]=={revision.removeprefix('bentune ')}"
