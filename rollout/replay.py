"""Replay of logged traffic with a candidate: its disagreement with the logged answers."""

import random
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bentune.bundle.errors import BundleError, InputError
from bentune.bundle.targets.registry import TARGETS
from bentune.bundle.targets.target import Target
from rollout.predict import Scorer
from service.monitoring.log_files import log_files
from service.monitoring.prediction_log import MOST_CHARACTERS, LoggedPrediction

# The texts of a line, at most six bytes a character in JSON, and the scores of many labels.
MOST_LINE_BYTES = 6 * MOST_CHARACTERS + 1_000_000
CHUNK_ROWS = 256
SHOWN_FLIPS = 10


@dataclass
class Logged:
    """Uniform sample of a log's usable lines, and the number of lines of each kind.

    `damaged` lines are incomplete or not written by the service; `redacted` ones have no text; `other_inputs` are texts
    where the candidate needs pairs, or pairs where it needs texts.
    """

    rows: list[LoggedPrediction] = field(default_factory=list)
    usable: int = 0
    damaged: int = 0
    redacted: int = 0
    other_inputs: int = 0

    @property
    def models(self) -> Counter[str]:
        """Count the sampled lines by the version that answered."""
        return Counter(row.model for row in self.rows)


@dataclass(frozen=True, slots=True)
class ChangedAnswer:
    """Input whose answer changes from `before` to `label`.

    `was_sure` and `confidence` are each model's confidence in its own answer. A multi-label answer names all labels,
    and its confidence is that of the least confident one.
    """

    logged: LoggedPrediction
    before: str
    was_sure: float
    label: str
    confidence: float
    certainty: float


@dataclass(frozen=True, slots=True)
class Rate:
    """Share of changed answers, with Wilson's interval at 95 % (Wilson, JASA 1927, 22:209)."""

    flips: int
    rows: int

    @property
    def value(self) -> float:
        """Return the changed answers per row."""
        return self.flips / self.rows

    @property
    def interval(self) -> tuple[float, float]:
        """Return the ends of the interval, between 0 and 1."""
        z = statistics.NormalDist().inv_cdf(0.975)
        spread = 1 + z * z / self.rows
        centre = (self.value + z * z / (2 * self.rows)) / spread
        width = z * ((self.value * (1 - self.value) + z * z / (4 * self.rows)) / self.rows) ** 0.5 / spread
        return max(0.0, centre - width), min(1.0, centre + width)


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Result of a replay.

    `by_label` is the rate among the inputs whose logged answer is that label, `to` the changes by (logged, candidate)
    label. `moved` is the sorted absolute change of the logged label's probability, one entry a row; for multi-label
    answers the largest change of any label. `flips` are at most ten, those in which both models are most confident.
    """

    rate: Rate
    by_label: dict[str, Rate]
    to: Counter[tuple[str, str]]
    moved: list[float]
    flips: list[ChangedAnswer]

    def moved_at(self, share: float) -> float:
        """Return the quantile `share` of the absolute changes of probability."""
        return self.moved[min(len(self.moved) - 1, int(share * len(self.moved)))]


def read_log(place: Path, *, pairs: bool, most: int) -> Logged:
    """Read a log's directory or one of its files, and keep a sample of its lines.

    The sample has at most `most` lines, so that memory does not grow with the log. Raises InputError, with a remedy,
    where no line can be scored.
    """
    files = _files(place)
    found = Logged()
    # A fixed seed, so that two candidates are compared on the same lines.
    chance = random.Random(0)  # noqa: S311 (a sample, and no secret)
    for line in (line for path in files for line in _lines(path)):
        row = _parsed(line)
        if row is None:
            found.damaged += 1
        elif row.text is None:
            found.redacted += 1
        elif (row.text_pair is not None) != pairs:
            found.other_inputs += 1
        else:
            found.usable += 1
            # Vitter's algorithm R (ACM TOMS 1985, 11:37).
            place_of = len(found.rows) if found.usable <= most else chance.randrange(found.usable)
            if place_of < most:
                found.rows[place_of : place_of + 1] = [row]
    if not found.rows:
        raise InputError(_nothing(place, found, pairs=pairs))
    return found


def require_same_labels(rows: list[LoggedPrediction], target: Target) -> None:
    """Raise BundleError when the log is of another model.

    Such a log has another kind of target, or no label in common.
    """
    others = {row.kind for row in rows} - {target.kind}
    if others:
        gives = TARGETS[min(others)].gives
        raise BundleError(f"the candidate gives an input {target.gives}, the log is of a model that gives {gives}")
    logged = sorted({label for row in rows for label in row.scores})
    if not set(logged) & set(target.labels):
        raise BundleError(f"the candidate has the labels {', '.join(target.labels)}, the log has {', '.join(logged)}")


def disagreement(
    scorer: Scorer, rows: list[LoggedPrediction], progress: Callable[[int], None], target: Target
) -> Disagreement:
    """Score each row's inputs and compare them with the logged answers.

    `progress` is called with the rows done. A label that one of the two models lacks has a probability of 0 there.
    """
    asked: Counter[str] = Counter()
    to: Counter[tuple[str, str]] = Counter()
    moved: list[float] = []
    flips: list[ChangedAnswer] = []
    for start in range(0, len(rows), CHUNK_ROWS):
        chunk = rows[start : start + CHUNK_ROWS]
        answers = scorer.score([(row.text or "", row.text_pair) for row in chunk])
        for row, answer in zip(chunk, answers, strict=True):
            found = target.replayed(row.scores, {one["label"]: one["score"] for one in answer})
            moved.append(found.moved)
            asked[found.before] += 1
            if found.flipped:
                to[found.before, found.after] += 1
                flips.append(ChangedAnswer(row, found.before, found.was_sure, found.after, found.sure, found.weight))
        flips = sorted(flips, key=lambda flip: -flip.certainty)[:SHOWN_FLIPS]
        progress(start + len(chunk))
    by_label = {
        label: Rate(sum(count for (logged, _), count in to.items() if logged == label), rows_of)
        for label, rows_of in sorted(asked.items())
    }
    return Disagreement(Rate(to.total(), len(rows)), by_label, to, sorted(moved), flips)


def summary(found: Disagreement, log: Logged, tag: str, *, texts: bool) -> dict[str, Any]:
    """Summarize a replay as JSON.

    The most confident changes include their texts only with `texts`.
    """
    low, high = found.rate.interval
    return {
        "candidate": tag,
        "answered_by": dict(log.models),
        "rows": found.rate.rows,
        "left_out": {
            "sampled_away": log.usable - len(log.rows),
            "damaged": log.damaged,
            "redacted": log.redacted,
            "other_inputs": log.other_inputs,
        },
        "flips": found.rate.flips,
        "disagreement": {"value": found.rate.value, "low": low, "high": high},
        "by_label": {label: {"rows": rate.rows, "flips": rate.flips} for label, rate in found.by_label.items()},
        "to": [{"logged": one, "candidate": other, "rows": count} for (one, other), count in found.to.most_common()],
        "score_difference": {
            "mean": statistics.fmean(found.moved),
            "p95": found.moved_at(0.95),
            "largest": found.moved[-1],
        },
        "most_certain_flips": [
            {
                "key": flip.logged.key,
                "logged": {"label": flip.before, "score": flip.was_sure},
                "candidate": {"label": flip.label, "score": flip.confidence},
            }
            | ({"text": flip.logged.text, "text_pair": flip.logged.text_pair} if texts else {})
            for flip in found.flips
        ],
    }


def _files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise InputError(f"{place}: no such log; give the directory of BENTUNE_PREDICTION_LOG, or one file of it")
    files = log_files(place)
    if not files:
        raise InputError(f"{place}: no predictions-*.jsonl in it; give the directory of BENTUNE_PREDICTION_LOG")
    return files


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file.

    A line that is too long is replaced with an empty one, which counts as damaged.
    """
    with path.open("rb") as file:
        while line := file.readline(MOST_LINE_BYTES):
            whole = line.endswith(b"\n")
            while not line.endswith(b"\n") and (line := file.readline(MOST_LINE_BYTES)):
                pass
            yield line if whole else b""


def _parsed(line: bytes) -> LoggedPrediction | None:
    try:
        row = LoggedPrediction.model_validate_json(line)
    except ValidationError:
        return None
    # The service refuses empty texts, so that it logs none.
    return row if row.label in row.scores and row.text != "" else None


def _nothing(place: Path, found: Logged, *, pairs: bool) -> str:
    if found.redacted:
        return (
            f"{place}: its {found.redacted} predictions have no texts, and without them nothing can be scored again; "
            "serve with BENTUNE_PREDICTION_LOG_TEXT=true, where you may keep them, and replay what is logged then"
        )
    if found.other_inputs:
        given, wanted = ("single texts", "pairs") if pairs else ("pairs", "single texts")
        return f"{place}: its {found.other_inputs} predictions are of {given}, the candidate takes {wanted}"
    return f"{place}: none of its {found.damaged} lines was written by a service of this version"
