"""Metrics of the service, with their buckets.

BentoML serves them at /metrics beside its own. prometheus_client is imported only when the metrics are created: BentoML
must first set the directory of its multi-process mode, or histograms are lost (BentoML 5602).
"""

from collections.abc import Sequence

from bentune.bundle.errors import REQUEST_ERRORS
from service.engine.runtime import REASONS
from service.scheduling.scheduler import Observer

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ENCODE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1)
BATCH_REQUESTS = (1, 2, 4, 8, 16, 32, 64, 128)
BATCH_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
RATIO = (0.0, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75)
CONFIDENCE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


class Metrics(Observer):
    """Metrics of one process; they observe the scheduler."""

    def __init__(self) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        self.queue_seconds = Histogram(
            "bentune_request_queue_seconds", "Time from arrival to the start of compute, per input", buckets=SECONDS
        )
        self.encode_seconds = Histogram(
            "bentune_encode_seconds", "Time to encode the inputs of one request", buckets=ENCODE_SECONDS
        )
        self.inference_seconds = Histogram("bentune_inference_seconds", "Time to compute one batch", buckets=SECONDS)
        self.batch_requests = Histogram("bentune_batch_requests", "Inputs in a batch", buckets=BATCH_REQUESTS)
        self.batch_tokens = Histogram("bentune_batch_tokens", "Padded tokens in a batch", buckets=BATCH_TOKENS)
        self.batch_padding_ratio = Histogram(
            "bentune_batch_padding_ratio", "Share of a batch's padded tokens that is padding", buckets=RATIO
        )
        # Several workers share one page: a gauge is the sum over the live workers.
        self.queue_requests = Gauge("bentune_queue_requests", "Waiting inputs", multiprocess_mode="livesum")
        self.queue_tokens = Gauge("bentune_queue_tokens", "Waiting tokens", multiprocess_mode="livesum")
        self.slots_busy = Gauge("bentune_slots_busy", "Slots that compute", multiprocess_mode="livesum")
        # A write costs a system call in multi-process mode, so only changed values are written.
        self._gauges = (self.queue_requests, self.queue_tokens, self.slots_busy)
        self._shown = (0, 0, 0)
        self.rejected_total = Counter("bentune_rejected_total", "Requests that got no prediction", ["reason"])
        self.truncated_total = Counter("bentune_truncated_total", "Inputs that were cut to the model's limit")
        self.predictions_total = Counter(
            "bentune_predictions_total", "Inputs by predicted label; one with several labels counts for each", ["label"]
        )
        self.confidence = Histogram("bentune_confidence", "Score of the likeliest label", buckets=CONFIDENCE)
        self.model_info = Gauge(
            "bentune_model_info",
            "The model that is served; always 1",
            ["name", "version", "task", "variant", "provider", "digest"],
            multiprocess_mode="max",
        )
        # Each worker has its own window, and any of them represents the pod. The largest of several would exceed the
        # threshold more often than its definition allows.
        self.drift_psi = Gauge(
            "bentune_drift_psi",
            "Population stability index of the newest inputs against test rows; absent until there are enough",
            ["feature"],
            multiprocess_mode="mostrecent",
        )
        self.drift_psi_threshold = Gauge(
            "bentune_drift_psi_threshold",
            "The index that inputs like the test rows exceed less than once a month",
            ["feature"],
            multiprocess_mode="mostrecent",
        )
        self.prediction_log_total = Counter(
            "bentune_prediction_log_total", "Inputs that were sampled for the prediction log", ["outcome"]
        )
        self.plan_fallback = Gauge(
            "bentune_plan_fallback",
            "1 when the pod does not run as planned, by reason",
            ["reason"],
            multiprocess_mode="max",
        )

    def batch_computed(self, n_items: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        """Count a batch of `n_items` inputs that was computed in `seconds`."""
        self.batch_requests.observe(n_items)
        self.batch_tokens.observe(padded_tokens)
        self.batch_padding_ratio.observe(1 - tokens / padded_tokens)
        self.inference_seconds.observe(seconds)

    def queued(self, seconds: float) -> None:
        """Count an input that waited `seconds` before it was computed."""
        self.queue_seconds.observe(seconds)

    def rejected(self, reason: str) -> None:
        """Count a request that gets no prediction."""
        self.rejected_total.labels(reason).inc()

    def changed(self, waiting_items: int, waiting_tokens: int, busy_slots: int) -> None:
        """Set the gauges of the queue and the slots."""
        now = (waiting_items, waiting_tokens, busy_slots)
        for gauge, value, before in zip(self._gauges, now, self._shown, strict=True):
            if value != before:
                gauge.set(value)
        self._shown = now

    def predicted(self, labels: Sequence[str], confidence: float | None) -> None:
        """Count one answer with these labels.

        `confidence` is the probability of the likeliest label, or None.
        """
        for label in labels:
            self.predictions_total.labels(label).inc()
        if confidence is not None:
            self.confidence.observe(confidence)

    def drifted(self, feature: str, index: float) -> None:
        """Set the population stability index of `feature`."""
        self.drift_psi.labels(feature).set(index)

    def logged(self, outcome: str) -> None:
        """Count a sampled input by the outcome of its line in the prediction log.

        Any thread may call it.
        """
        self.prediction_log_total.labels(outcome).inc()

    def prepare(self, labels: Sequence[str]) -> None:
        """Create every series at zero.

        The first event is then an increase and not a new series.
        """
        for label in labels:
            self.predictions_total.labels(label)
        for error in REQUEST_ERRORS:
            self.rejected_total.labels(error.reason)
        for reason in REASONS:
            self.plan_fallback.labels(reason).set(0)
