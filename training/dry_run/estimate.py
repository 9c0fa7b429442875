"""Estimate of a training from a few measured steps: seconds as an interval, memory, disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bentune.bundle.files import Frozen

QUANTILES = (0.05, 0.95)
"""Quantiles of the measured steps' relative times, the ends of the interval: all steps as fast, or as slow."""

CHECKPOINTS_AT_ONCE = 3
"""Trainer keeps two checkpoints, including the best one, and removes a checkpoint only after writing a third."""


@dataclass(frozen=True, slots=True)
class Timed:
    """One measured step: the number of its group, its tokens with padding, and its seconds."""

    group: int
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Phase:
    """One training; a recipe that prunes has two. `left` is the number of tokens per group in the remaining steps.

    `evaluation_seconds` is the time of one evaluation, `save_seconds` and `checkpoint_bytes` are time and size of one
    checkpoint.
    """

    name: str
    steps: int
    done: int
    left: list[int]
    timed: list[Timed]
    evaluations: int
    evaluation_seconds: float
    saves: int
    save_seconds: float
    checkpoint_bytes: int


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """Measurements of a rehearsal. `peak_bytes` is the resident memory of its process.

    `start_seconds` is the time before the first step, including a teacher's logits for all rows. `saved_bytes` is the
    size of the trained weights, `tokens_bytes` that of the tokenized rows, `held_bytes` that of an interrupted run's
    tokenized rows and checkpoints, `model_bytes` that of the whole model in float32. `taken` is the share of the cores,
    0 to 1, that other programs kept busy. `said` are the messages of the rehearsal.
    """

    rows: int
    start_seconds: float
    phases: list[Phase]
    save_seconds: float
    saved_bytes: int
    tokens_bytes: int
    held_bytes: int
    model_bytes: int
    peak_bytes: int
    gpu_peak_bytes: int | None
    taken: float
    said: list[Any]


class SecondsRange(Frozen):
    """Interval of seconds."""

    low: float
    expected: float
    high: float


class TimedWork(Frozen):
    """Component of the time: work that is done `times` times, and its total seconds."""

    name: str
    times: int
    seconds: float


class Estimate(Frozen):
    """Needs of the train stage. MB are 10^6 bytes.

    `measured_steps` were timed, while other programs kept the share `taken` of the cores busy. `disk_mb` is the peak
    during training, `kept_mb` the disk space of its results. `gpu_peak_mb` is None without a GPU.
    """

    rows: int
    steps: int
    measured_steps: int
    taken: float
    seconds: SecondsRange
    parts: tuple[TimedWork, ...]
    peak_memory_mb: float
    gpu_peak_mb: float | None
    disk_mb: float
    kept_mb: float


def estimate(found: Rehearsal, *, prunes: bool) -> Estimate:
    """Estimate a whole training; early stopping may end it sooner."""
    parts = [TimedWork(name="start", times=1, seconds=found.start_seconds)]
    ratios: list[float] = []
    for phase in found.phases:
        seconds, spread = _steps(phase)
        ratios += spread
        of = f" {phase.name}" if prunes else ""
        parts.append(TimedWork(name=f"steps{of}", times=phase.steps - phase.done, seconds=seconds))
        if phase.evaluations:
            each = phase.evaluation_seconds
            parts.append(TimedWork(name=f"validations{of}", times=phase.evaluations, seconds=phase.evaluations * each))
        parts.append(TimedWork(name=f"checkpoints{of}", times=phase.saves, seconds=phase.saves * phase.save_seconds))
    parts.append(TimedWork(name="end", times=1, seconds=found.save_seconds))
    total = sum(part.seconds for part in parts)
    low, high = np.quantile(ratios, QUANTILES)
    disk = max(min(phase.saves, CHECKPOINTS_AT_ONCE) * phase.checkpoint_bytes for phase in found.phases)
    # The model before pruning, after pruning, and after the second training.
    pruning = 3 * found.model_bytes if prunes else 0
    kept = 2 * found.model_bytes if prunes else found.saved_bytes
    return Estimate(
        rows=found.rows,
        steps=sum(phase.steps - phase.done for phase in found.phases),
        measured_steps=len(ratios),
        taken=found.taken,
        # The lower end assumes that other programs end at once.
        seconds=SecondsRange(low=total * float(low) * (1 - found.taken), expected=total, high=total * float(high)),
        parts=tuple(parts),
        peak_memory_mb=found.peak_bytes / 1e6,
        gpu_peak_mb=found.gpu_peak_bytes / 1e6 if found.gpu_peak_bytes is not None else None,
        disk_mb=(found.tokens_bytes + max(disk + pruning, kept)) / 1e6,
        kept_mb=kept / 1e6,
    )


def _steps(phase: Phase) -> tuple[float, list[float]]:
    """Return the expected seconds of the remaining steps, and relative times.

    There is one relative time per measured step: its time divided by the time expected from its tokens and its group's
    mean seconds per token.
    """
    everything = _rate(phase.timed)
    of_group = {
        group: _rate([step for step in phase.timed if step.group == group]) for group in {s.group for s in phase.timed}
    }
    seconds = sum(tokens * of_group.get(group, everything) for group, tokens in enumerate(phase.left))
    return seconds, [step.seconds / (step.tokens * of_group[step.group]) for step in phase.timed]


def _rate(timed: Sequence[Timed]) -> float:
    """Return the mean seconds per token."""
    return sum(step.seconds for step in timed) / sum(step.tokens for step in timed)
