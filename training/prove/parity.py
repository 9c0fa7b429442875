"""Parity chain: comparison of each point with the point before it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from bentune.bundle.files import Frozen
from bentune.bundle.targets.target import Target
from training.tasks.digest import digest

if TYPE_CHECKING:  # the report reads hops, and must not import torch
    from bentune.bundle.arrays import Logits


@dataclass(frozen=True, slots=True)
class Stop:
    """Results of one point of the chain: logits, float32 [rows, labels], and the rows' token ids.

    `probe_ids` are the token ids of the task's probes, which are made-up texts.
    """

    name: str
    logits: "Logits"
    token_ids: list[list[int]]
    labels: list[str]
    tokenizer_digest: str
    probe_ids: list[list[int]] = field(default_factory=list)


class Hop(Frozen):
    """Comparison of one point of the chain with the point before it.

    Differences are those of logits, None when they are not finite; digests are sha256.
    """

    hop: str
    before: str
    after: str
    rows: int
    largest_difference: float | None
    mean_difference: float | None
    tolerance: float
    label_flips: int
    label_flips_allowed: int
    rows_with_other_tokens: int
    token_digest: str
    tokenizer_digest: str
    label_digest: str
    problems: list[str]


class Parity(Frozen):
    """parity.json: the chain from the trained model to the served one, on `rows` test rows."""

    rows: int
    hops: list[Hop]

    @property
    def largest_difference(self) -> float:
        """The largest difference of a logit at any hop."""
        return max((hop.largest_difference or 0.0 for hop in self.hops), default=0.0)


def compare(hop: str, before: Stop, after: Stop, tolerance: float, flips_allowed: int, target: Target) -> Hop:
    """Compare two successive points of the chain; `problems` lists exceeded bounds."""
    same_shape = before.logits.shape == after.logits.shape
    difference = np.abs(before.logits - after.logits) if same_shape else np.full(1, np.inf)
    flips = len(before.logits)
    if same_shape:
        flips = int(target.differ(*(target.answers(one.logits) for one in (before, after))).sum())
    largest = float(difference.max())
    other_tokens = sum(a != b for a, b in zip(before.token_ids, after.token_ids, strict=True))
    problems = []
    if before.labels != after.labels:
        problems.append(f"the label map changed from {before.labels} to {after.labels}")
    if other_tokens:
        problems.append(f"the tokenizer gives other tokens for {other_tokens} of {len(before.token_ids)} rows")
    elif before.probe_ids != after.probe_ids:
        other = sum(a != b for a, b in zip(before.probe_ids, after.probe_ids, strict=True))
        problems.append(
            f"the tokenizer gives other tokens for {other} of {len(after.probe_ids)} made-up texts with blanks, line "
            "ends, accents or special tokens, though these rows have the same"
        )
    elif before.tokenizer_digest != after.tokenizer_digest:
        problems.append("the tokenizer has changed, though these rows have the same tokens")
    # Negated, so that a NaN is out of bounds too.
    if not largest <= tolerance:
        problems.append(f"the largest logit difference is {largest:.3g}, the tolerance {tolerance:.3g}")
    if flips > flips_allowed:
        problems.append(f"{flips} labels changed, {flips_allowed} allowed")
    return Hop(
        hop=hop,
        before=before.name,
        after=after.name,
        rows=len(before.token_ids),
        largest_difference=largest if np.isfinite(largest) else None,
        mean_difference=float(difference.mean()) if np.isfinite(largest) else None,
        tolerance=tolerance,
        label_flips=flips,
        label_flips_allowed=flips_allowed,
        rows_with_other_tokens=other_tokens,
        token_digest=digest(after.token_ids),
        tokenizer_digest=after.tokenizer_digest,
        label_digest=digest(after.labels),
        problems=problems,
    )


def hop_table(hops: list[Hop]) -> Table:
    """Tabulate the chain, one line per hop."""
    table = Table(title=f"{hops[0].rows} test rows through every hop")
    for name in ("hop", "compares", "largest logit difference", "mean", "tolerance", "label flips", "verdict"):
        table.add_column(name)
    for hop in hops:
        table.add_row(
            hop.hop,
            f"{hop.before} -> {hop.after}",
            _short(hop.largest_difference),
            _short(hop.mean_difference),
            f"{hop.tolerance:.2g}",
            str(hop.label_flips),
            "[red]fail" if hop.problems else "[green]pass",
        )
    return table


def _short(difference: float | None) -> str:
    return "not finite" if difference is None else f"{difference:.2g}"
