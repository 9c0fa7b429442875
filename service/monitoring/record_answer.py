"""What becomes of an answer beside the answer itself: it is counted, compared with the baseline, and maybe logged."""

from collections.abc import Sequence
from pathlib import Path

from bentune.bundle.manifest import Bundle
from bentune.bundle.scores import Floats, best_label, given_labels
from service.http.requests import Row
from service.monitoring.drift import Drift
from service.monitoring.metrics import Metrics
from service.monitoring.prediction_log import OUTCOMES, Kept, PredictionLog
from service.settings import Settings
from service.tasks.encoder import Encoded


class Outcomes:
    """Those of one process."""

    def __init__(self, bundle: Bundle, settings: Settings, metrics: Metrics) -> None:
        self._labels, self._model, self._content = bundle.manifest.labels, bundle.tag, bundle.content
        self._multi_label = bundle.manifest.multi_label
        self._metrics = metrics
        self._drift = Drift(bundle.baseline, metrics.drifted)
        for name, histogram in bundle.baseline.features.items():
            metrics.drift_psi_threshold.labels(name).set(histogram.threshold)
        self._log: PredictionLog | None = None
        if settings.prediction_log:
            for outcome in OUTCOMES:
                metrics.prediction_log_total.labels(outcome)
            self._log = PredictionLog(
                Path(settings.prediction_log),
                settings.prediction_log_sample,
                settings.prediction_log_max_bytes,
                texts=settings.prediction_log_text,
                count=metrics.logged,
            )

    def keep(self, rows: Sequence[Row]) -> list[Kept | None]:
        """For each input what its line in the log will need of it, or None: its texts are given up before it waits."""
        log = self._log
        return [None] * len(rows) if log is None else [log.keep(row) for row in rows]

    def answered(self, tokens: Encoded, scores: Floats, kept: Kept | None) -> None:
        """An input gets these probabilities, float32 [labels]."""
        confidence = float(scores.max())
        self._metrics.predicted(given_labels(scores, self._labels, multi_label=self._multi_label), confidence)
        self._drift.answered(len(tokens), best_label(scores, multi_label=self._multi_label), confidence)
        if kept is not None and self._log is not None:
            self._log.put(
                kept,
                tokens=len(tokens),
                truncated=tokens.truncated,
                scores=dict(zip(self._labels, scores.tolist(), strict=True)),
                multi_label=self._multi_label,
                model=self._model,
                content=self._content,
            )

    def close(self) -> None:
        """Write what is left of the log; takes some seconds where the disk is slow."""
        if self._log is not None:
            self._log.close()
