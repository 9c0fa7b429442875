"""Record of each answer: metrics, drift, prediction log."""

from collections.abc import Sequence
from pathlib import Path

from bentune.bundle.arrays import Float32s
from bentune.bundle.manifest import Bundle
from service.http.requests import InputRow
from service.monitoring.drift import Drift
from service.monitoring.metrics import Metrics
from service.monitoring.prediction_log import OUTCOMES, PredictionLog, SampledInput
from service.settings import Settings
from service.tasks.task import Encoded, Task


class Recorder:
    """Recorder of one process's answers."""

    def __init__(self, bundle: Bundle, task: Task, settings: Settings, metrics: Metrics) -> None:
        self._task, self._model, self._content = task, bundle.tag, bundle.content
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

    def keep(self, rows: Sequence[InputRow]) -> list[SampledInput | None]:
        """Return the data for each input's line in the log, or None if it is not logged.

        It is called before the inputs wait, because their texts are dropped then.
        """
        log = self._log
        return [None] * len(rows) if log is None else [log.keep(row) for row in rows]

    def answered(self, encoded: Encoded, scores: Float32s, kept: SampledInput | None) -> None:
        """Record the scores of one input, float32 [labels]."""
        observed = self._task.observe(encoded, scores)
        self._metrics.predicted(observed.labels, observed.confidence)
        self._drift.answered(observed.features)
        if kept is not None and self._log is not None:
            target = self._task.target
            self._log.put(
                kept,
                tokens=len(encoded),
                truncated=encoded.truncated,
                scores=dict(zip(target.labels, scores.tolist(), strict=True)),
                target=target.kind,
                model=self._model,
                content=self._content,
            )

    def close(self) -> None:
        """Write the rest of the log; a slow disk may take some seconds."""
        if self._log is not None:
            self._log.close()
