"""Scores logged traffic with a candidate and says where it disagrees with what was answered, before any pod runs it."""

import random
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from bentune.bundle.errors import BundleError, InputError
from bentune.bundle.targets.registry import TARGETS
from bentune.bundle.targets.target import Prediction, Target
from service.monitoring.log_files import log_files
from service.monitoring.prediction_log import MOST_CHARACTERS, LoggedPrediction

# A line is texts, of at most six bytes a character in JSON, and the scores of many labels.
MOST_LINE_BYTES = 6 * MOST_CHARACTERS + 1_000_000
CHUNK_ROWS = 256
SHOWN_FLIPS = 10


class Scorer(Protocol):
    """What this module needs of a predictor."""

    def score(self, texts: list[tuple[str, str | None]]) -> list[list[Prediction]]:
        """Predictions of texts or pairs, best label first, in their order; too long is cut."""
        ...


@dataclass
class Logged:
    """What was read of a log: a uniform sample of the lines that can be scored, and how many there were of each kind.

    `damaged` lines were not written by the service, or not to their end; `redacted` ones hold no text; `other_inputs`
    are texts where pairs are needed or the other way round.
    """

    rows: list[LoggedPrediction] = field(default_factory=list)
    usable: int = 0
    damaged: int = 0
    redacted: int = 0
    other_inputs: int = 0

    @property
    def models(self) -> Counter[str]:
        """The sampled lines by the version that answered."""
        return Counter(row.model for row in self.rows)


@dataclass(frozen=True, slots=True)
class Flip:
    """An input that the candidate answers otherwise, `label` after `before`, and how sure each is of its own answer.

    Where an input has any number of labels, an answer names all, and is as sure as the least sure of them.
    """

    logged: LoggedPrediction
    before: str
    was_sure: float
    label: str
    confidence: float

    @property
    def certainty(self) -> float:
        """How sure the less sure of the two is: where both are, one of them is wrong and does not know."""
        return min(self.was_sure, self.confidence)


@dataclass(frozen=True, slots=True)
class Rate:
    """`flips` of `rows`, with Wilson's interval at 95 % (Wilson, JASA 1927, 22:209)."""

    flips: int
    rows: int

    @property
    def value(self) -> float:
        """Flips a row."""
        return self.flips / self.rows

    @property
    def interval(self) -> tuple[float, float]:
        """Its ends, within 0 and 1."""
        z = statistics.NormalDist().inv_cdf(0.975)
        spread = 1 + z * z / self.rows
        centre = (self.value + z * z / (2 * self.rows)) / spread
        width = z * ((self.value * (1 - self.value) + z * z / (4 * self.rows)) / self.rows) ** 0.5 / spread
        return max(0.0, centre - width), min(1.0, centre + width)


@dataclass(frozen=True, slots=True)
class Disagreement:
    """What a replay found.

    `by_label` has the rate among inputs that were answered with a label; `to` the flips by (logged, candidate) labels.
    `moved` is how far the probability of the logged label moved, absolutely, an entry a row, sorted; of any number of
    labels that of the one which moved most. `flips` are those that both are surest of, at most ten.
    """

    rate: Rate
    by_label: dict[str, Rate]
    to: Counter[tuple[str, str]]
    moved: list[float]
    flips: list[Flip]

    def moved_at(self, share: float) -> float:
        """The difference that so large a share of the rows stays below."""
        return self.moved[min(len(self.moved) - 1, int(share * len(self.moved)))]


def read_log(place: Path, *, pairs: bool, most: int) -> Logged:
    """Read a log's directory, or one file of it, in memory that does not grow with it; keep at most `most` lines.

    Raises InputError where nothing in it can be scored, with what to do.
    """
    files = _files(place)
    found = Logged()
    # The same lines are chosen again, so that two candidates are asked the same.
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
    """Raise BundleError when the log is of another model: of another kind of target, or with no label in common."""
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
    """Score each row's texts and compare with what was answered; `progress` is told how many are done.

    A label that only one of the two has is one that the other gives a probability of 0.
    """
    asked: Counter[str] = Counter()
    to: Counter[tuple[str, str]] = Counter()
    moved: list[float] = []
    flips: list[Flip] = []
    for start in range(0, len(rows), CHUNK_ROWS):
        chunk = rows[start : start + CHUNK_ROWS]
        answers = scorer.score([(row.text or "", row.text_pair) for row in chunk])
        for row, answer in zip(chunk, answers, strict=True):
            found = target.replayed(row.scores, {one["label"]: one["score"] for one in answer})
            moved.append(found.moved)
            asked[found.before] += 1
            if found.flipped:
                to[found.before, found.after] += 1
                flips.append(Flip(row, found.before, found.was_sure, found.after, found.sure))
        flips = sorted(flips, key=lambda flip: -flip.certainty)[:SHOWN_FLIPS]
        progress(start + len(chunk))
    by_label = {
        label: Rate(sum(count for (logged, _), count in to.items() if logged == label), rows_of)
        for label, rows_of in sorted(asked.items())
    }
    return Disagreement(Rate(to.total(), len(rows)), by_label, to, sorted(moved), flips)


def summary(found: Disagreement, log: Logged, tag: str, *, texts: bool) -> dict[str, Any]:
    """For machines; the most certain flips with their texts only where they are asked for."""
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
    """The lines of a file; of one that is too long an empty one, which is damaged."""
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
    # What a text may be is what the tokenizer takes.
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
