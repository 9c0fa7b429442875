"""Answers and speed of both sides of a comparison on the same rows, in turns.

Each block of rows goes through both sides in random order, so that a drift of the machine affects both alike. A ratio
is the Hodges-Lehmann estimate over the logarithms of the pairs' ratios, with the interval of the Wilcoxon signed-rank
test (Hollander, Wolfe and Chicken 2014, sections 3.2 and 3.3): a single disturbed pair moves it little.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from bentune.bundle.arrays import Floats
from bentune.bundle.files import Frozen
from rollout.compare.models import Side
from rollout.load.bodies import Text

BLOCK_ROWS = 32
BLOCKS = 20
"""Fewest pairs, given enough rows: with fewer, the interval is meaningless."""
MOST_PAIRS = 2000
"""Most pairs of a ratio, which needs memory for their square."""


class Ratio(Frozen):
    """Ratio of the candidate to the served model, with its interval, from `pairs` of measurements."""

    value: float
    low: float
    high: float
    pairs: int


class Speed(Frozen):
    """Speed of one side: texts a second in blocks, and the latency of a single text in milliseconds."""

    texts_per_s: float
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True)
class Runs:
    """Answers and speed of both sides.

    Answers are float64 [rows, labels] in the order of the candidate's labels.
    """

    candidate: Floats
    served: Floats
    latency: Ratio
    throughput: Ratio
    speeds: tuple[Speed, Speed]


def run_both(
    candidate: Side,
    served: Side,
    texts: Sequence[Text],
    *,
    latency_rows: int,
    confidence: float,
    seed: int,
    advance: Callable[[int], None],
) -> Runs:
    """Score all texts on both sides in blocks, then `latency_rows` of them one by one.

    Both sides have the same labels, in any order. `advance` is called with the number of rows that both have scored.
    """
    rng = np.random.default_rng(seed)
    sides = (candidate, served)
    rows = len(texts)
    block = max(1, min(BLOCK_ROWS, rows // BLOCKS, *(side.most_texts for side in sides)))
    blocks = [list(texts[start : start + block]) for start in range(0, rows, block)]
    alone = [[texts[place]] for place in rng.permutation(rows)[:latency_rows]]
    for side in sides:  # warm-up: the first call loads and allocates
        side.score(blocks[0])
        side.score(alone[0])
    answers, block_s = _in_turns(sides, blocks, rng, advance)
    _, alone_s = _in_turns(sides, alone, rng, advance)
    order = [served.target.index[label] for label in candidate.target.labels]
    sizes = np.array([len(one) for one in blocks])
    speeds = [
        Speed(
            texts_per_s=rows / float(block_s[:, side].sum()),
            p50_ms=float(np.median(alone_s[:, side]) * 1000),
            p95_ms=float(np.quantile(alone_s[:, side], 0.95) * 1000),
        )
        for side in (0, 1)
    ]
    whole = sizes == block  # the last block may be smaller
    return Runs(
        candidate=np.vstack(answers[0]),
        served=np.vstack(answers[1])[:, order],
        latency=ratio(alone_s[:, 0], alone_s[:, 1], confidence),
        throughput=ratio(block_s[whole, 1], block_s[whole, 0], confidence),
        speeds=(speeds[0], speeds[1]),
    )


def ratio(numerator: npt.NDArray[np.float64], denominator: npt.NDArray[np.float64], confidence: float) -> Ratio:
    """Estimate the ratio of pairs of positive numbers, with a two-sided interval.

    Both arrays are float64 [pairs]. With too few pairs for the confidence, the interval is the range of the pairs.
    """
    logs = np.log(numerator[:MOST_PAIRS] / denominator[:MOST_PAIRS])
    pairs = len(logs)
    first, second = np.triu_indices(pairs)
    means = np.sort((logs[first] + logs[second]) / 2)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    outside = math.floor(pairs * (pairs + 1) / 4 - z * math.sqrt(pairs * (pairs + 1) * (2 * pairs + 1) / 24))
    outside = max(outside, 1)
    return Ratio(
        value=math.exp(float(np.median(means))),
        low=math.exp(float(means[outside - 1])),
        high=math.exp(float(means[-outside])),
        pairs=pairs,
    )


def _in_turns(
    sides: tuple[Side, Side], blocks: Sequence[Sequence[Text]], rng: np.random.Generator, advance: Callable[[int], None]
) -> tuple[tuple[list[Floats], list[Floats]], npt.NDArray[np.float64]]:
    """Return both sides' answers, and the seconds of each block, float64 [blocks, 2]."""
    answers: tuple[list[Floats], list[Floats]] = ([], [])
    seconds = np.empty((len(blocks), 2))
    for number, block in enumerate(blocks):
        for side in rng.permutation(2).tolist():
            started = time.perf_counter()
            answers[side].append(sides[side].score(block))
            seconds[number, side] = time.perf_counter() - started
        advance(len(block))
    return answers, seconds
