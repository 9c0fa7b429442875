"""Replay of the golden rows: test rows whose scores must match those in the bundle."""

from dataclasses import dataclass

from bentune.bundle.manifest import GoldenRow
from service.engine.predictor import Predictor


@dataclass(frozen=True, slots=True)
class Replay:
    """Result of a replay: `largest_difference` is the target's distance; `failed` numbers the rows out of tolerance."""

    rows: int
    largest_difference: float
    failed: list[int]

    @property
    def passed(self) -> bool:
        """True if there are rows, and each is within its tolerance."""
        return self.rows > 0 and not self.failed


def replay(predictor: Predictor, golden: list[GoldenRow], key: str) -> Replay:
    """Score every golden row alone and compare with the bundle's scores under `key`."""
    largest, failed = 0.0, []
    for number, row in enumerate(golden):
        encoded = predictor.task.encoder.encode(row.text, row.text_pair, truncate=True)
        scores = predictor.scores(predictor.logits([encoded]))[0]
        difference = predictor.task.difference(scores, row.scores.get(key, []))
        # Written so that a NaN fails too.
        if not difference <= row.tolerance:
            failed.append(number)
        largest = max(largest, difference) if difference == difference else float("inf")  # noqa: PLR0124
    return Replay(rows=len(golden), largest_difference=largest, failed=failed)
