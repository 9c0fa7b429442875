"""The page of a run's report: one self-contained HTML file for a screen, a phone, or paper.

It contains excerpts of rows. All texts from outside are escaped.
"""

import re
from collections.abc import Sequence
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from bentune.quality.registry import QUALITIES
from bentune.quality.statistics.calibration import Calibration
from training.data.report import DataReport
from training.plan.report import CHECK_COLUMNS, ENTRY_COLUMNS, check_cells, entry_cells, verdict
from training.prove.evaluation import Evaluation
from training.prove.evaluation_table import per_class
from training.recipe.data import RowLimits
from training.recipe.file import spelled_out
from training.recipe.train import AugmentSettings, Balance
from training.report.facts import PARTS, Facts, spelled
from training.report.head import cautions_of, commands_of, served_of, tiles_of, what_of
from training.report.plots import Plot, curves, lengths, pareto, reliability
from training.report.tables import (
    confusion_of,
    duplicate_rows,
    label_rows,
    length_rows,
    metrics_of,
    seen_rows,
    trial_rows,
)
from training.tasks.registry import task_of

TEMPLATE = "page.html"
STYLES = (("bentune.quality", "page.css"), ("training.report", "templates/page.css"))
SHOWN_CHARACTERS = 300
SAMPLE_CHARACTERS = 160
"""The longest piece of a text in a table, in characters."""
RELIABLE = "Accuracy of the tuned model by its confidence"
ROOMY = frozenset({"provider", "lone text ms", "padding", "rounds"})
"""Columns of the measurements that are hidden on a phone."""
RULES = {"html": "HTML tags or entities", "mojibake": "wrongly decoded text"}
EFFECTS = {"fixed": "fixed", "found": "as they are", "left out": "left out"}
TITLES = {
    "judged": "Compared with what is served",
    "what": "What was trained",
    "data": "The data",
    "search": "The search",
    "seen": "What training saw",
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


def page_of(facts: Facts, missing: Sequence[str], tools: dict[str, str], revision: str, recipe_file: str) -> str:
    """Render the page as HTML.

    `missing` names the stages without facts, `recipe_file` is the path of the used recipe.
    """
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(lambda name: _file("training.report", f"templates/{name}")),
    )
    environment.filters |= {
        "cut": cut,
        "digits": _digits,
        "drawing": _drawing,
        "spelled": spelled,
        "rule_name": lambda name: RULES.get(name, name.replace("_", " ")),
        "part_name": lambda name: PARTS.get(name, name),
        "percent": lambda share: f"{share:.0%}",
        "ticks": _ticks,
        "thousands": lambda number: f"{number:,}",
    }
    plan, tested, training = facts.plan, facts.evaluation, facts.training
    learning = curves(training.curve, training.best_step) if training else []
    again = curves(training.pruned.curve, training.pruned.best_step, "pruned-") if training and training.pruned else []
    seen = seen_rows(training, facts.recipe.train.augment) if training else []
    task = task_of(facts.recipe)
    confusion = getattr(tested.tuned, "confusion", None) if tested else None
    calibration = getattr(tested.tuned, "calibration", None) if tested else None
    there = {
        "data": facts.data,
        "search": facts.search,
        "seen": seen,
        "learning": learning,
        "before-after": tested,
        "confusion": confusion,
        "calibration": calibration,
        "slices": tested and tested.slices,
        "mistakes": tested and tested.mistakes,
        "parity": facts.parity,
        "plan": plan,
        "judged": facts.judged,
    }
    return environment.get_template(TEMPLATE).render(
        SAMPLE=SAMPLE_CHARACTERS,
        EFFECTS=EFFECTS,
        style=Markup("".join(_file(*style) for style in STYLES)),  # noqa: S704 (our own files)
        facts=facts,
        lengths_shown=task.lengths,
        sliced=list(dict.fromkeys(name for one in tested.slices for name in one.metrics)) if tested else [],
        shares=type(tested.tuned).shares if tested else frozenset(),
        task=task,
        matrix=confusion,
        calibration=calibration,
        minimum=tested.minimum.against_constant(QUALITIES[tested.target].words) if tested and tested.minimum else "",
        labels_of_report=per_class(tested.tuned) if tested else {},
        tiles=tiles_of(facts),
        cautions=cautions_of(facts, missing, revision),
        contents=[(name, title) for name, title in TITLES.items() if there.get(name, True)],
        what=what_of(facts, revision),
        split=_split(facts.rows, facts.recipe.data.rows) if facts.rows else "",
        lengths=lengths(facts.rows) if facts.rows and task.lengths else [],
        length_rows=length_rows(facts.rows) if facts.rows and task.lengths else [],
        duplicates=duplicate_rows(facts.rows) if facts.rows else [],
        labels=label_rows(facts.data) if facts.data else [],
        learning=learning,
        learning_again=again,
        logged=list(dict.fromkeys(key for point in training.curve for key in point.metrics)) if training else [],
        balance=_balance(facts.recipe.train.balance),
        seen=seen,
        views=_views(facts.recipe.train.augment),
        trials=trial_rows(facts.search, facts.recipe) if facts.search else [],
        metrics=metrics_of(tested) if tested else None,
        reliability=_reliability(tested, calibration) if tested and calibration else None,
        confusion=confusion_of(tested.tuned.labels, confusion) if tested and confusion else None,
        verdict=verdict(plan).splitlines() if plan and plan.measured else [],
        pareto=pareto(plan) if plan and plan.measured else None,
        check_columns=CHECK_COLUMNS,
        checks=[[*check_cells(one), one.problem or "pass"] for one in plan.checks] if plan else [],
        served=served_of(plan) if plan else "",
        entry_columns=ENTRY_COLUMNS,
        roomy=ROOMY,
        entries=[entry_cells(one) for one in plan.measured] if plan else [],
        commands=commands_of(facts, revision, recipe_file),
        recipe_yaml=spelled_out(facts.recipe),
        revision=revision,
        tools=tools,
    )


def cut(text: str, most: int = SHOWN_CHARACTERS) -> str:
    """Return one line of at most `most` characters."""
    line = " ".join(text.split())
    # A text of exactly this length was already cut when it was stored.
    return line if len(text) < most else line[:most] + " …"


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _drawing(svg: str, alt: str) -> Markup:
    """Add a text for screen readers to an SVG, whose content matplotlib has escaped."""
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1))  # noqa: S704


def _ticks(text: str) -> Markup:
    """Mark `this` in a sentence as code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 (escaped before)


def _split(report: DataReport, limits: RowLimits) -> str:
    """Describe the split of the rows and the limits of their number, a sentence each."""
    split = report.split
    how = {
        "label": f"Held out is the same share of each label, drawn with the seed {split.seed}",
        "group": f"Held out are whole groups by {split.column}, drawn with the seed {split.seed}",
        "time": f"Held out are the newest by {split.column}, from {split.held_out_from} on",
        "hub": f"Held out is the hub's own split {split.test}",
    }[split.kind]
    continued = "; rows of the previous version kept their part" if split.continued else ""
    bounds = {"to train on": limits.train, "held out": limits.test}
    drawn = " and ".join(f"{most:,} {what}" for what, most in bounds.items() if most)
    return f"{how}{continued}.{f' At most {drawn} were drawn.' if drawn else ''}"


def _balance(balance: Balance) -> str:
    return balance if isinstance(balance, str) else f"at most {balance.cap:,} rows of a label"


def _views(augment: AugmentSettings) -> str:
    """List the random changes of a training image; empty where there are none."""
    mirrored = "horizontally and vertically, each" if augment.flip == "both" else f"{augment.flip}ly"
    ways = {
        f"turned by up to {augment.rotation:g} degrees either way (rotation)": augment.rotation > 0,
        f"cut to a part of at least {augment.crop:.0%} of its area (crop)": augment.crop < 1,
        f"mirrored {mirrored} half of the time (flip)": augment.flip != "none",
    }
    return ", ".join(way for way, taken in ways.items() if taken)


def _reliability(tested: Evaluation, calibration: Calibration) -> Plot:
    if tested.temperature is None:
        return reliability({"this model": calibration.bins}, RELIABLE)
    models = {"after": calibration.bins, "before": tested.temperature.before.bins}
    return reliability(models, f"{RELIABLE}, before and after the temperature")


def _file(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")
