"""Stage `evaluate`: the base model with a fresh head and the tuned one, on the same held-out rows."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bentune.bundle.manifest import write_json
from bentune.bundle.processor import IMAGES
from bentune.bundle.scores import NO_LABEL, answers, differ, probabilities
from bentune.quality import classification as quality
from bentune.quality import multi_label as multilabel
from bentune.quality.bootstrap import Interval
from bentune.quality.calibration import ece_difference
from bentune.quality.classification import Classification, PairedDifference
from bentune.quality.slices import by_column
from training.data.label_order import ranks_of
from training.pipeline.stage import Context, Summary
from training.prove.evaluation import EXCERPT, FILE, SMALL, Changed, Compressed, Evaluation, Mistake, Scaled, Slice
from training.prove.evaluation_table import changed_table, metrics_table, slices_table
from training.prove.larger import larger_models
from training.prove.temperature import FILE as TEMPERATURE
from training.prove.temperature import Temperature
from training.tasks.base import quiet
from training.tasks.carried import Carried, read_carried
from training.tasks.logits import Logits, logits_of
from training.tasks.rows import Rows, read_rows
from training.tasks.saved import labels_of, tokenizer_of
from training.train.methods import load_same_base, load_tuned


def run(context: Context) -> Summary:
    """Write evaluation.json: metrics before and after, their paired difference, slices, and rows worth a look.

    `compressed` has, for `teacher` (with `distill`) and `dense` (before `prune`), its metrics and the paired difference
    from it to the tuned model; it is empty where the recipe has neither. Raises InputError when `evaluate.ordinal` is
    set and a label is no number.
    """
    quiet()
    recipe, trained, settings = context.recipe, context.inputs["train"], context.recipe.evaluate
    labels, tokenizer = labels_of(trained), tokenizer_of(trained)
    file = context.inputs["data"] / "test.parquet"
    rows, carried = read_rows(file), read_carried(file, settings.slices)
    measure: dict[str, Any] = {"bins": settings.calibration_bins}
    if settings.ordinal:
        measure["ranks"] = ranks_of(labels)
    bootstrap: dict[str, Any] = {
        "resamples": settings.resamples,
        "confidence": settings.confidence,
        "seed": recipe.seed,
    }
    # An image is shown by where it comes from.
    shown = replace(rows, texts=carried.origins) if recipe.task == IMAGES else rows
    with context.report.task("evaluating", 2 * len(rows)) as advance:
        base = load_same_base(recipe, labels, trained)
        before = logits_of(base, tokenizer, rows, recipe.max_tokens, advance)
        after = logits_of(load_tuned(recipe, labels, trained), tokenizer, rows, recipe.max_tokens, advance)
    plain, temperature = after, _temperature(context)
    if temperature is not None:
        after = plain / np.float32(temperature.temperature)
    larger = larger_models(recipe, trained, rows, labels, context.report)
    classification, paired = _metrics_of(rows)
    evaluation = Evaluation(
        base=classification(before, rows.labels, labels, **measure, **bootstrap),
        tuned=classification(after, rows.labels, labels, **measure, **bootstrap),
        difference=paired(before, after, rows.labels, **bootstrap),
        changed=_changed(before, after, shown, labels, settings.examples),
        mistakes=_mistakes(after, shown, carried, labels, settings.mistakes),
        slices=_slices(after, rows, carried, labels, measure | bootstrap),
        temperature=_scaled(temperature, plain, after, rows, labels, measure | bootstrap) if temperature else None,
        compressed={
            name: Compressed(
                metrics=classification(logits, rows.labels, labels, **measure, **bootstrap),
                difference=paired(logits, after, rows.labels, **bootstrap),
            )
            for name, logits in larger.items()
        },
    )
    write_json(context.work / FILE, evaluation)
    context.report.say(metrics_table(evaluation))
    if evaluation.slices:
        context.report.say(slices_table(evaluation.slices))
    context.report.say(changed_table(evaluation.changed))
    accuracy = {"base": evaluation.base.accuracy.model_dump(), "tuned": evaluation.tuned.accuracy.model_dump()}
    accuracy |= {name: one.metrics.accuracy.model_dump() for name, one in evaluation.compressed.items()}
    return accuracy | {"rows": len(rows)}


def _metrics_of(rows: Rows) -> tuple[Callable[..., Classification], Callable[..., PairedDifference]]:
    module = multilabel if rows.labels.ndim > 1 else quality
    return module.classification, module.paired


def _probabilities(logits: Logits, rows: Rows) -> npt.NDArray[np.float64]:
    exact: Any = logits.astype(np.float64)
    return np.asarray(probabilities(exact, multi_label=rows.labels.ndim > 1), dtype=np.float64)


def _answers(logits: Logits, rows: Rows) -> npt.NDArray[Any]:
    return answers(logits, multi_label=rows.labels.ndim > 1)


def _named(answer: Any, labels: list[str]) -> str:
    """The label of this number, or all that are marked, as people read them."""
    if np.ndim(answer) == 0:
        return labels[int(answer)]
    return ", ".join(labels[number] for number in np.flatnonzero(answer)) or NO_LABEL


def _temperature(context: Context) -> Temperature | None:
    if "calibrate" not in context.inputs:
        return None
    return Temperature.model_validate_json((context.inputs["calibrate"] / TEMPERATURE).read_bytes())


def _scaled(
    temperature: Temperature, plain: Logits, scaled: Logits, rows: Rows, labels: list[str], options: dict[str, Any]
) -> Scaled:
    before = _metrics_of(rows)[0](plain, rows.labels, labels, **options)
    bootstrap = {name: options[name] for name in ("bins", "resamples", "confidence", "seed")}
    new, old = (_probabilities(logits, rows) for logits in (scaled, plain))
    return Scaled(
        temperature=temperature.temperature,
        rows=temperature.rows,
        before=before.calibration,
        log_loss_before=before.log_loss,
        brier_before=before.brier,
        error=ece_difference(new, old, rows.labels, **bootstrap),
    )


def _slices(after: Logits, rows: Rows, carried: Carried, labels: list[str], options: dict[str, Any]) -> list[Slice]:
    found = []
    for column, values in carried.values.items():
        for by, value, inside in by_column(column, values):
            gold = rows.labels[inside]
            metrics = _metrics_of(rows)[0](after[inside], gold, labels, **options)
            present = gold.any(axis=0).sum() if gold.ndim > 1 else len(np.unique(gold))
            found.append(
                Slice(
                    by=by,
                    value=value,
                    rows=metrics.rows,
                    small=metrics.rows < SMALL,
                    accuracy=metrics.accuracy,
                    macro_f1=_times(metrics.macro_f1, len(labels) / max(1, present)),
                    log_loss=metrics.log_loss,
                    mean_absolute_error=metrics.mean_absolute_error,
                    calibration_error=metrics.calibration.error,
                )
            )
    return found


def _times(one: Interval, factor: float) -> Interval:
    return Interval(value=one.value * factor, low=one.low * factor, high=one.high * factor)


def _mistakes(after: Logits, rows: Rows, carried: Carried, labels: list[str], most: int) -> list[Mistake]:
    answered, (confidence, gold_score) = _answers(after, rows), _sureness(after, rows)
    wrong = np.flatnonzero(differ(answered, rows.labels))
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")][:most]
    return [
        Mistake(
            text=rows.texts[row][:EXCERPT],
            origin=carried.origins[row],
            gold=_named(rows.labels[row], labels),
            predicted=_named(answered[row], labels),
            confidence=float(confidence[row]),
            gold_score=float(gold_score[row]),
        )
        for row in surest.tolist()
    ]


def _sureness(after: Logits, rows: Rows) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """How sure the model is of its answer to each row, and what it gives the right one, each float64 [rows].

    Of any number of labels it is that of the surest wrong decision on one; where none is wrong of the surest of all.
    """
    scores, gold = _probabilities(after, rows), rows.labels
    if gold.ndim == 1:
        return scores.max(axis=-1), scores[np.arange(len(gold)), gold]
    decided = np.maximum(scores, 1 - scores)
    wrong = _answers(after, rows) != gold
    sure = np.where(wrong.any(axis=1), np.where(wrong, decided, 0).max(axis=1), decided.max(axis=1))
    return sure, np.where(wrong.any(axis=1), 1 - sure, sure)


def _changed(before: Logits, after: Logits, rows: Rows, labels: list[str], most: int) -> list[Changed]:
    old, new = _answers(before, rows), _answers(after, rows)
    confidence, _ = _sureness(after, rows)
    is_wrong = differ(new, rows.labels)
    changed = sorted(np.flatnonzero(differ(old, new)), key=lambda row: -float(confidence[row]))
    wrong = [row for row in changed if is_wrong[row]][: most // 2]
    right = [row for row in changed if not is_wrong[row]][: most - len(wrong)]
    return [
        Changed(
            text=rows.texts[row][:EXCERPT],
            gold=_named(rows.labels[row], labels),
            base=_named(old[row], labels),
            tuned=_named(new[row], labels),
            confidence=float(confidence[row]),
        )
        for row in [*right, *wrong]
    ]
