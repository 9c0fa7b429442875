"""Stage `evaluate`: the base model with a fresh head and the tuned model, on the same test set."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.markup import escape

from bentune.bundle.arrays import Logits
from bentune.bundle.files import write_json
from bentune.bundle.targets.target import Target
from bentune.quality.groups import by_column
from bentune.quality.minimum import minimum_of
from bentune.quality.quality import Quality, Report
from bentune.quality.registry import quality_of
from bentune.quality.statistics.calibration import Calibration
from training.pipeline.layout import CalibrateFiles, DataFiles, EvaluateFiles, TrainFiles
from training.pipeline.results import EvaluateResult, Temperature
from training.pipeline.stage import Context
from training.prove.evaluation import EXCERPT, SMALL, Changed, Compressed, Evaluation, Mistake, Scaled, Slice
from training.prove.evaluation_table import changed_table, metrics_table, slices_table
from training.prove.larger import larger_models
from training.tasks.base.load import quiet
from training.tasks.logits import logits_of
from training.tasks.registry import task_of
from training.tasks.rows import Carried, Rows, read_carried, read_rows
from training.tasks.saved import labels_of, target_in, tokenizer_of
from training.tasks.targets.label_order import ranks_of
from training.train.methods import load_same_base, load_tuned


def run(context: Context) -> EvaluateResult:
    """Write evaluation.json with the metrics before and after.

    It also holds their paired difference, slices, and example rows. `compressed` holds the metrics of `teacher` (with
    `distill`) and `dense` (before `prune`), and the paired difference from each of them to the tuned model. Raises
    InputError when `evaluate.ordinal` is set and a label is not a number.
    """
    quiet()
    recipe, settings = context.recipe, context.recipe.evaluate
    trained, data = context.files(TrainFiles).directory, context.files(DataFiles)
    labels, tokenizer = labels_of(trained), tokenizer_of(trained)
    rows, carried = read_rows(data.test), read_carried(data.test, settings.slices)
    measure: dict[str, Any] = {"bins": settings.calibration_bins}
    if settings.ordinal:
        measure["ranks"] = ranks_of(labels)
    bootstrap: dict[str, Any] = {
        "resamples": settings.resamples,
        "confidence": settings.confidence,
        "seed": recipe.seed,
    }
    target = target_in(data.directory)
    quality = quality_of(target)
    shown = task_of(recipe).shown(rows, carried.origins)
    with context.report.task("evaluating", 2 * len(rows)) as advance:
        base = load_same_base(recipe, labels, trained)
        before = logits_of(base, tokenizer, rows, recipe.max_tokens, advance)
        after = logits_of(load_tuned(recipe, labels, trained), tokenizer, rows, recipe.max_tokens, advance)
    plain, temperature = after, _temperature(context)
    if temperature is not None:
        after = plain / np.float32(temperature.temperature)
    larger = larger_models(recipe, trained, rows, labels, context.report)
    judged = JudgedRows(rows, shown, carried, target, quality, measure | bootstrap)
    tuned = judged.measure(after)
    minimum = minimum_of(quality, tuned, after, rows.labels, target, settings.minimum)
    evaluation = Evaluation(
        target=target.kind,
        headline=quality.report.tiles[0],
        base=judged.measure(before),
        tuned=tuned,
        difference=quality.paired(before, after, rows.labels, target, **bootstrap),
        changed=judged.changed(before, after, settings.examples),
        mistakes=judged.mistakes(after, settings.mistakes),
        slices=judged.slices(after),
        minimum=minimum,
        temperature=judged.scaled(temperature, plain, after) if temperature else None,
        compressed={
            name: Compressed(
                metrics=judged.measure(logits),
                difference=quality.paired(logits, after, rows.labels, target, **bootstrap),
            )
            for name, logits in larger.items()
        },
    )
    write_json(EvaluateFiles(context.work).evaluation, evaluation)
    context.report.say(metrics_table(evaluation))
    mark = "[yellow]![/] no better than a constant: " if minimum.useless else "minimum: "
    context.report.say(mark + escape(minimum.against_constant(quality.words)))
    if evaluation.slices:
        context.report.say(slices_table(evaluation.slices))
    context.report.say(changed_table(evaluation.changed))
    headline = {"base": evaluation.base, "tuned": tuned}
    headline |= {name: one.metrics for name, one in evaluation.compressed.items()}
    values = {name: found.metrics[evaluation.headline] for name, found in headline.items()}
    result = EvaluateResult(rows=len(rows), **values)
    return result if minimum.reached else result.model_copy(update={"problem": minimum.problem(quality.words)})


def _temperature(context: Context) -> Temperature | None:
    """Read the temperature from the file that `verify` reads too; None without one."""
    if not context.has(CalibrateFiles):
        return None
    return Temperature.model_validate_json(context.files(CalibrateFiles).temperature.read_bytes())


@dataclass(frozen=True, slots=True)
class JudgedRows:
    """Test set, as measured and as `shown` in excerpts, with its quality metrics and their options."""

    rows: Rows
    shown: Rows
    carried: Carried
    target: Target
    quality: Quality
    options: dict[str, Any]

    def measure(self, logits: Logits, inside: Any = slice(None)) -> Report:
        """Measure a model on all rows, or on the rows in `inside`, bool [rows]."""
        return self.quality.measure(logits[inside], self.rows.labels[inside], self.target, **self.options)

    def scaled(self, temperature: Temperature, plain: Logits, scaled: Logits) -> Scaled:
        """Measure the effect of the temperature."""
        before = self.measure(plain).metrics
        bootstrap = {name: self.options[name] for name in ("bins", "resamples", "confidence", "seed")}
        gold, target = self.rows.labels, self.target
        return Scaled(
            temperature=temperature.temperature,
            rows=temperature.rows,
            before=Calibration(
                error=before["calibration_error"],
                bins=self.quality.reliability(plain, gold, target, self.options["bins"]),
            ),
            log_loss_before=before["log_loss"],
            brier_before=before["brier"],
            error=self.quality.calibration_change(scaled, plain, gold, target, **bootstrap),
        )

    def slices(self, after: Logits) -> list[Slice]:
        """Measure the tuned model on each value of the columns to slice by."""
        return [
            Slice(
                by=by,
                value=value,
                rows=int(inside.sum()),
                small=bool(inside.sum() < SMALL),
                metrics=self.quality.of_slice(self.measure(after, inside), self.rows.labels[inside]),
            )
            for column, values in self.carried.values.items()
            for by, value, inside in by_column(column, values)
        ]

    def mistakes(self, after: Logits, most: int) -> list[Mistake]:
        """List the wrong answers, the worst first."""
        answered, found = self.target.answers(after), self.quality.wrong(after, self.rows.labels, self.target)
        wrong = np.flatnonzero(found.wrong)
        worst = wrong[np.argsort(-found.severity[wrong], kind="stable")][:most]
        return [
            Mistake(
                text=self.shown.texts[row][:EXCERPT],
                origin=self.carried.origins[row],
                gold=self.target.spell(self.rows.labels[row]),
                predicted=self.target.spell(answered[row]),
                confidence=_one(found.confidence, row),
                gold_score=_one(found.gold_score, row),
            )
            for row in worst.tolist()
        ]

    def changed(self, before: Logits, after: Logits, most: int) -> list[Changed]:
        """Return at most `most` rows whose answer changed, the right answers first.

        At most half of them are wrong answers.
        """
        old, new = self.target.answers(before), self.target.answers(after)
        found = self.quality.wrong(after, self.rows.labels, self.target)
        rows = np.flatnonzero(self.target.differ(old, new))
        changed = rows[np.argsort(-found.severity[rows], kind="stable")].tolist()
        wrong = [row for row in changed if found.wrong[row]][: most // 2]
        right = [row for row in changed if not found.wrong[row]][: most - len(wrong)]
        return [
            Changed(
                text=self.shown.texts[row][:EXCERPT],
                gold=self.target.spell(self.rows.labels[row]),
                base=self.target.spell(old[row]),
                tuned=self.target.spell(new[row]),
                confidence=_one(found.confidence, row),
            )
            for row in [*right, *wrong]
        ]


def _one(values: npt.NDArray[np.float64] | None, row: int) -> float | None:
    return None if values is None else float(values[row])
