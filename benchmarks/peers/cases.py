"""Cases of the table: texts, load, figures, and the target ratio to the textbook service."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.peers.systems import System
from benchmarks.peers.texts import Texts
from rollout.load.generator import Body, Load

BATCH = 128
SHORT, LONG = "short", "long"
CROWD = "32 clients, 1 text"


@dataclass(frozen=True)
class Figure:
    """One number of a case; `target` is the ratio ours / textbook to reach, at least or at most."""

    name: str
    read: Callable[[Load], float]
    target: float | None = None
    higher_is_better: bool = True

    def held(self, ratio: float) -> bool:
        """Return True if the ratio ours / textbook is within the target."""
        if self.target is None:
            return True
        return ratio >= self.target if self.higher_is_better else ratio <= self.target


@dataclass(frozen=True)
class Case:
    """Load of every system for `seconds` per round, after a warm-up that does not count."""

    name: str
    clients: int
    bodies: Callable[[System, Texts], list[Body]]
    figures: tuple[Figure, ...]
    seconds: float
    warmup_s: float


def _percentile(percent: float, group: str | None = None) -> Callable[[Load], float]:
    return lambda load: 1000 * load.percentiles([percent], group)[0]


def _single(texts: Callable[[Texts], Sequence[str]]) -> Callable[[System, Texts], list[Body]]:
    return lambda system, given: [system.body([text]) for text in texts(given)]


def _mixed(system: System, texts: Texts) -> list[Body]:
    """Return requests in the order of four short texts, then one of the most tokens."""
    bodies = []
    for number, text in enumerate(texts.short):
        bodies.append(system.body([text], SHORT))
        if number % 4 == 3:
            bodies.append(system.body([texts.long[number // 4 % len(texts.long)]], LONG))
    return bodies


def _lists(system: System, texts: Texts) -> list[Body]:
    """Return lists of BATCH texts that contain each text."""
    usual = texts.usual
    starts = range(0, len(usual), BATCH)
    return [system.body([usual[(start + place) % len(usual)] for place in range(BATCH)]) for start in starts]


REQUESTS = Figure("requests/s", lambda load: load.requests_per_s)
P50 = Figure("p50 ms", _percentile(50), higher_is_better=False)
P99 = Figure("p99 ms", _percentile(99), higher_is_better=False)


def cases(seconds: float) -> list[Case]:
    """Return all cases.

    Most take `seconds` per round and system; those with slow answers take longer.
    """
    usual, short = _single(lambda texts: texts.usual), _single(lambda texts: texts.short)
    at_least, at_most = _with_target(REQUESTS), _with_target(P99)
    warm = seconds / 4
    return [
        # First: after many clients, the textbook's dispatcher makes a single client wait for further requests.
        Case("1 client, 1 text", 1, usual, (_with_target(P50)(0.6), REQUESTS, P99), seconds, warm),
        Case(CROWD, 32, usual, (at_least(5.0), P50, at_most(0.35)), 1.5 * seconds, 2 * warm),
        Case("64 clients, at most 20 tokens", 64, short, (at_least(3.0), P50, P99), seconds, warm),
        Case(
            "32 clients, 80 % short, 20 % longest",
            32,
            _mixed,
            (
                Figure("short texts' p95 ms", _percentile(95, SHORT), 0.5, higher_is_better=False),
                REQUESTS,
                Figure("longest wait ms", _percentile(100), higher_is_better=False),
            ),
            1.5 * seconds,
            2 * warm,
        ),
        Case(
            f"1 client, lists of {BATCH}",
            1,
            _lists,
            (Figure("texts/s", lambda load: load.inputs_per_s, 3.0), P50),
            2 * seconds,
            warm,
        ),
    ]


def _with_target(figure: Figure) -> Callable[[float], Figure]:
    return lambda target: Figure(figure.name, figure.read, target, figure.higher_is_better)
