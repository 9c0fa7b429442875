"""A stand-in for the predictor of offline scoring."""

from collections.abc import Callable, Sequence

from rollout.predict import Prediction

LABELS = ("lö", "mid", "high")


def predictions(text: str) -> list[Prediction]:
    shift = sum(map(ord, text)) % 3
    return [{"label": LABELS[(n + shift) % 3], "score": score} for n, score in enumerate((0.75, 0.125, 0.0625))]


class FakeScorer:
    """Scores that depend on the text alone; remembers every text, and does `on_call[n]` at the nth call."""

    def __init__(self, digest: str = "d1", on_call: dict[int, Callable[[], object]] | None = None) -> None:
        self.digest = digest
        self.texts: list[tuple[str, str | None]] = []
        self.calls = 0
        self.on_call = on_call or {}

    def score(self, texts: Sequence[tuple[str, str | None]]) -> list[list[Prediction]]:
        self.calls += 1
        self.on_call.get(self.calls, lambda: None)()
        self.texts += texts
        return [predictions(text) for text, _ in texts]
