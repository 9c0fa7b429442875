"""Stage `evaluate`: the base model with a fresh head and the tuned one, on the same held-out rows."""

from typing import TypedDict

import numpy as np
from rich.table import Table

from rollout.quality import Classification, classification, paired
from service.contract import write_json
from service.scores import probabilities
from training.base import quiet
from training.logits import Logits, torch_logits
from training.methods import load_same_base, load_tuned
from training.rows import Rows, read_rows
from training.stage import Context, Summary
from training.tuned import labels_of, tokenizer_of

EXAMPLE_CHARACTERS = 300


class _Bootstrap(TypedDict):
    resamples: int
    confidence: float
    seed: int


def run(context: Context) -> Summary:
    """Write evaluation.json: metrics before and after, their paired difference, and rows whose answer changed."""
    quiet()
    recipe, trained = context.recipe, context.inputs["train"]
    labels, tokenizer = labels_of(trained), tokenizer_of(trained)
    rows = read_rows(context.inputs["data"] / "test.parquet")
    with context.report.task("evaluating", 2 * len(rows)) as advance:
        base = load_same_base(recipe, labels, trained)
        before, _ = torch_logits(base, tokenizer, rows, recipe.max_tokens, advance)
        after, _ = torch_logits(load_tuned(recipe, labels, trained), tokenizer, rows, recipe.max_tokens, advance)
    settings = recipe.evaluate
    bootstrap = _Bootstrap(resamples=settings.resamples, confidence=settings.confidence, seed=recipe.seed)
    metrics = {
        "base": classification(before, rows.labels, labels, **bootstrap),
        "tuned": classification(after, rows.labels, labels, **bootstrap),
    }
    difference = paired(before, after, rows.labels, **bootstrap)
    changed = _changed(before, after, rows, labels, settings.examples)
    evaluation = {
        **{name: value.model_dump(mode="json") for name, value in metrics.items()},
        "difference": difference.model_dump(mode="json"),
        "changed": changed,
    }
    write_json(context.work / "evaluation.json", evaluation)
    context.report.say(_table(metrics, len(rows)))
    context.report.say(_changed_table(changed))
    return {name: value.accuracy.model_dump() for name, value in metrics.items()} | {"rows": len(rows)}


def _changed(before: Logits, after: Logits, rows: Rows, labels: list[str], most: int) -> list[dict[str, object]]:
    old, new = before.argmax(axis=-1), after.argmax(axis=-1)
    confidence = probabilities(after).max(axis=-1)
    changed = sorted(np.flatnonzero(old != new), key=lambda row: -float(confidence[row]))
    wrong = [row for row in changed if new[row] != rows.labels[row]][: most // 2]
    right = [row for row in changed if new[row] == rows.labels[row]][: most - len(wrong)]
    return [
        {
            "text": rows.texts[row][:EXAMPLE_CHARACTERS],
            "gold": labels[int(rows.labels[row])],
            "base": labels[int(old[row])],
            "tuned": labels[int(new[row])],
            "confidence": float(confidence[row]),
        }
        for row in [*right, *wrong]
    ]


def _table(metrics: dict[str, Classification], rows: int) -> Table:
    confidence = metrics["base"].confidence
    table = Table(title=f"{rows} held-out rows ({confidence:.0%} bootstrap intervals)")
    table.add_column("metric")
    for name in metrics:
        table.add_column(name, justify="right")
    for key in ("accuracy", "macro_f1", "log_loss"):
        values = [getattr(value, key) for value in metrics.values()]
        table.add_row(key, *(f"{v.value:.3f}  [{v.low:.3f}, {v.high:.3f}]" for v in values))
    for label, tuned in metrics["tuned"].per_class.items():
        cells = [metrics["base"].per_class[label], tuned]
        table.add_row(
            f"  {label} ({tuned.support})", *(f"P {c.precision.value:.2f}  R {c.recall.value:.2f}" for c in cells)
        )
    return table


def _changed_table(changed: list[dict[str, object]]) -> Table:
    table = Table(title="rows whose answer changed", show_lines=False)
    table.add_column("text", no_wrap=True, overflow="ellipsis", max_width=60)
    for name in ("gold", "base", "tuned"):
        table.add_column(name, overflow="fold", min_width=8)
    for row in changed:
        table.add_row(" ".join(str(row["text"]).split()), str(row["gold"]), str(row["base"]), str(row["tuned"]))
    return table
