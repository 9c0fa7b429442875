"""The service's own predictor, wrapped for scoring files."""

from collections.abc import Sequence

from bentune.bundle.hardware import describe
from bentune.bundle.manifest import Bundle
from bentune.bundle.targets.target import Prediction
from service.engine.predictor import Predictor


class BundleScorer:
    """Scores texts with the variant and provider of the bundle's plan, on every core."""

    def __init__(self, bundle: Bundle) -> None:
        self.digest = bundle.digest
        self._predictor = Predictor.from_bundle(bundle, describe())

    def score(self, texts: Sequence[tuple[str, str | None]]) -> list[list[Prediction]]:
        """Predictions of texts or pairs, best label first, in their order."""
        return self._predictor.score(texts)
