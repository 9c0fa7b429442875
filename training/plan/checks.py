"""Checks of a variant: its accuracy compared with fp32's, and the dependence of its answers on the batch."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from bentune.bundle.arrays import Logits
from bentune.bundle.plan import Check
from bentune.bundle.targets.target import Target
from bentune.quality.registry import quality_of
from service.engine.predictor import Session
from service.tasks.task import Encoded, Encoder
from training.recipe.recipe import PlanSettings
from training.tasks.rows import Labels

BATCH_SIZES = (2, 8)


@dataclass(frozen=True, slots=True)
class Sample:
    """Test set of a check: encoded inputs, true labels, and fp32's logits, float32 [rows, labels]."""

    tokens: Sequence[Encoded]
    labels: Labels
    encoder: Encoder
    target: Target
    fp32: Logits | None = None


def logits_alone(session: Session, sample: Sample, at_a_time: int, advance: Callable[[int], None]) -> Logits:
    """Compute the logits of every row alone on `at_a_time` threads.

    The logits are float32 [rows, labels].
    """

    def one(tokens: Encoded) -> Logits:
        logits = session.run(sample.encoder.collate([tokens]))
        advance(1)
        return logits

    with ThreadPoolExecutor(at_a_time) as threads:
        return np.concatenate(list(threads.map(one, sample.tokens)))


def check(
    variant: str,
    provider: str,
    session: Session,
    sample: Sample,
    alone: Logits,
    bounds: PlanSettings,
    *,
    megabytes: float,
    seed: int,
) -> Check:
    """Compare the logits of single rows with fp32's and with the logits in batches.

    `alone` holds the logits of each row alone, float32 [rows, labels].
    """
    fp32 = alone if sample.fp32 is None else sample.fp32
    rows = len(alone)
    found = Check(variant=variant, provider=provider, rows=rows, megabytes=round(megabytes, 1))
    if not np.isfinite(alone).all():
        return found.model_copy(update={"problem": "its logits are not finite"})
    target, quality = sample.target, quality_of(sample.target)
    lost = quality.loss(fp32, alone, sample.labels, target)
    difference, flips, looked_at = batch_dependence(session, sample, alone, bounds.batch_rows, seed)
    problem = ""
    if not math.isfinite(difference):
        return found.model_copy(update={"problem": "its logits are not finite in batches"})
    if lost.value > bounds.accuracy_budget:
        unit = f"{quality.words.unit} of {quality.words.budget}"
        problem = f"it loses {lost.value:.2f} {unit}, {bounds.accuracy_budget:.2f} are allowed"
    depends = difference > bounds.batch_tolerance or 100 * flips / looked_at > bounds.accuracy_budget
    return found.model_copy(
        update={
            "accuracy": quality.score(alone, sample.labels, target),
            "accuracy_loss": lost.value,
            "loss_low": lost.low,
            "loss_high": lost.high,
            "label_flips": int(target.differ(target.answers(alone), target.answers(fp32)).sum()),
            "batch_flips": flips,
            "batch_difference": difference,
            "alone": depends,
            "problem": problem,
        }
    )


def batch_dependence(session: Session, sample: Sample, alone: Logits, most: int, seed: int) -> tuple[float, int, int]:
    """Measure the dependence of answers on the batch.

    Returns the largest change of a probability, the number of label flips, and the number of compared rows. Up to
    `most` rows are computed in shuffled batches of each size, with and without the longest row, which adds padding.
    """
    order = np.random.default_rng(seed).permutation(len(alone))[:most]
    longest = int(max(order, key=lambda row: len(sample.tokens[row])))
    target = sample.target
    expected, answered = target.scores(alone), target.answers(alone)
    differences, flipped = [0.0], set[int]()
    for size in BATCH_SIZES:
        for company in ([], [longest]):
            for start in range(0, len(order), size):
                batch = [*order[start : start + size].tolist(), *company]
                logits = session.run(sample.encoder.collate([sample.tokens[row] for row in batch]))
                differences.append(target.distance(target.scores(logits), expected[batch]))
                changed = target.differ(target.answers(logits), answered[batch])
                flipped.update(row for row, other in zip(batch, changed, strict=True) if other)
    return float(np.max(differences)), len(flipped), len(order)
