"""Whether a variant may be served: its accuracy beside fp32's on the same rows, and if answers depend on the batch."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bentune.bundle.manifest import ProcessorSettings
from bentune.bundle.plan import Check
from bentune.bundle.processor import ImageSettings
from bentune.bundle.scores import answers, differ, probabilities
from service.engine.predictor import Session
from service.tasks.encoder import Encoded, feed
from training.recipe.recipe import PlanSettings
from training.tasks.logits import Logits

BATCH_SIZES = (2, 8)


@dataclass(frozen=True, slots=True)
class Sample:
    """The held-out rows of a check: tokens, true labels, int64 [rows], and fp32's logits, float32 [rows, labels].

    Where rows have any number of labels these are int64 [rows, labels], and a row is right where all of them are.
    """

    tokens: Sequence[Encoded]
    labels: npt.NDArray[np.int64]
    settings: ProcessorSettings | ImageSettings
    fp32: Logits | None = None

    @property
    def multi_label(self) -> bool:
        """Whether rows have any number of labels."""
        return self.labels.ndim > 1

    def answers(self, logits: Logits) -> npt.NDArray[Any]:
        """As `bentune.bundle.scores.answers`."""
        return answers(logits, multi_label=self.multi_label)


def logits_alone(session: Session, sample: Sample, at_a_time: int, advance: Callable[[int], None]) -> Logits:
    """Logits of every row alone, float32 [rows, labels]; `at_a_time` threads call the session."""

    def one(tokens: Encoded) -> Logits:
        logits = session.run(feed([tokens], sample.settings))
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
    """Compare `alone`, the logits that `session` gave each row alone, with fp32's and with the same rows in batches."""
    fp32 = alone if sample.fp32 is None else sample.fp32
    rows = len(alone)
    found = Check(variant=variant, provider=provider, rows=rows, megabytes=round(megabytes, 1))
    if not np.isfinite(alone).all():
        return found.model_copy(update={"problem": "its logits are not finite"})
    answered, before = sample.answers(alone), sample.answers(fp32)
    right, reference = (~differ(one, sample.labels) for one in (answered, before))
    loss, low, high = paired_loss(int((reference & ~right).sum()), int((right & ~reference).sum()), rows)
    difference, flips, looked_at = batch_dependence(session, sample, alone, bounds.batch_rows, seed)
    problem = ""
    if not math.isfinite(difference):
        return found.model_copy(update={"problem": "its logits are not finite in batches"})
    if loss > bounds.accuracy_budget:
        problem = f"it loses {loss:.2f} points of accuracy, {bounds.accuracy_budget:.2f} are allowed"
    depends = difference > bounds.batch_tolerance or 100 * flips / looked_at > bounds.accuracy_budget
    return found.model_copy(
        update={
            "accuracy": float(right.mean()),
            "accuracy_loss": loss,
            "loss_low": low,
            "loss_high": high,
            "label_flips": int(differ(answered, before).sum()),
            "batch_flips": flips,
            "batch_difference": difference,
            "alone": depends,
            "problem": problem,
        }
    )


def paired_loss(lost: int, won: int, rows: int) -> tuple[float, float, float]:
    """Points of accuracy that a variant loses, with a 95 % interval, from the rows that only one of the two got right.

    The interval is Agresti and Min's for matched pairs (Statistics in Medicine 2005, 24:729): Wald's after half a row
    was added to each cell, so that it does not shrink to nothing where no row differs.
    """
    lost_more, won_more, more = lost + 0.5, won + 0.5, rows + 2
    centre = (lost_more - won_more) / more
    width = 1.96 * math.sqrt(lost_more + won_more - (lost_more - won_more) ** 2 / more) / more
    return 100 * (lost - won) / rows, 100 * max(centre - width, -1), 100 * min(centre + width, 1)


def batch_dependence(session: Session, sample: Sample, alone: Logits, most: int, seed: int) -> tuple[float, int, int]:
    """How much answers depend on the batch: the largest change of a probability, the rows that flip, the rows asked.

    Up to `most` rows go through shuffled batches of each size, with and without the longest row among them, which pads
    all the others to its length.
    """
    order = np.random.default_rng(seed).permutation(len(alone))[:most]
    longest = int(max(order, key=lambda row: len(sample.tokens[row])))
    expected, answered = probabilities(alone, multi_label=sample.multi_label), sample.answers(alone)
    differences, flipped = [0.0], set[int]()
    for size in BATCH_SIZES:
        for company in ([], [longest]):
            for start in range(0, len(order), size):
                batch = [*order[start : start + size].tolist(), *company]
                logits = session.run(feed([sample.tokens[row] for row in batch], sample.settings))
                scores = probabilities(logits, multi_label=sample.multi_label)
                differences.append(float(np.abs(scores - expected[batch]).max()))
                changed = differ(sample.answers(logits), answered[batch])
                flipped.update(row for row, other in zip(batch, changed, strict=True) if other)
    return float(np.max(differences)), len(flipped), len(order)
