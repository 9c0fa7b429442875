"""Every metric that the design names is there from the start, and moves with what it counts."""

import prometheus_client
import pytest

from bentune.bundle.errors import REQUEST_ERRORS
from service.monitoring.metrics import Metrics

# DESIGN.md's list, but for generation, which this service does not have yet.
HISTOGRAMS = (
    "bentune_request_queue_seconds",
    "bentune_encode_seconds",
    "bentune_inference_seconds",
    "bentune_batch_requests",
    "bentune_batch_tokens",
    "bentune_batch_padding_ratio",
    "bentune_confidence",
)
GAUGES = (
    *("bentune_queue_requests", "bentune_queue_tokens", "bentune_slots_busy"),
    *("bentune_model_info", "bentune_plan_fallback", "bentune_drift_psi", "bentune_drift_psi_threshold"),
)
COUNTERS = (
    *("bentune_rejected_total", "bentune_truncated_total", "bentune_predictions_total"),
    "bentune_prediction_log_total",
)


@pytest.fixture
def metrics(registry: prometheus_client.CollectorRegistry) -> Metrics:
    return Metrics()


def test_the_names_of_the_design_exist(metrics: Metrics, registry: prometheus_client.CollectorRegistry) -> None:
    kinds = {family.name: family.type for family in registry.collect()}
    expected = dict.fromkeys(HISTOGRAMS, "histogram") | dict.fromkeys(GAUGES, "gauge")
    assert kinds == expected | {name.removesuffix("_total"): "counter" for name in COUNTERS}


def test_every_metric_says_what_it_is(metrics: Metrics, registry: prometheus_client.CollectorRegistry) -> None:
    assert all(len(family.documentation) > 10 for family in registry.collect())


def test_every_series_is_there_before_its_first_event(
    metrics: Metrics, registry: prometheus_client.CollectorRegistry
) -> None:
    metrics.prepare(["good", "bad"])
    for histogram in HISTOGRAMS:
        assert registry.get_sample_value(f"{histogram}_count") == 0
    for error in REQUEST_ERRORS:
        assert registry.get_sample_value("bentune_rejected_total", {"reason": error.reason}) == 0
    for reason in ("cores", "isa", "provider", "golden"):
        assert registry.get_sample_value("bentune_plan_fallback", {"reason": reason}) == 0
    for label in ("good", "bad"):
        assert registry.get_sample_value("bentune_predictions_total", {"label": label}) == 0
    for name in ("bentune_truncated_total", "bentune_queue_requests", "bentune_queue_tokens", "bentune_slots_busy"):
        assert registry.get_sample_value(name) == 0


def test_a_batch_is_counted_with_its_padding(metrics: Metrics, registry: prometheus_client.CollectorRegistry) -> None:
    metrics.queued(0.5)
    metrics.queued(0.25)
    metrics.batch_computed(2, tokens=30, padded_tokens=40, seconds=0.125)
    sums = {name: registry.get_sample_value(f"bentune_{name}_sum") for name in ("batch_requests", "batch_tokens")}
    assert sums == {"batch_requests": 2, "batch_tokens": 40}
    assert registry.get_sample_value("bentune_batch_padding_ratio_sum") == pytest.approx(0.25)
    assert registry.get_sample_value("bentune_inference_seconds_sum") == 0.125
    assert registry.get_sample_value("bentune_request_queue_seconds_sum") == 0.75
    assert registry.get_sample_value("bentune_request_queue_seconds_count") == 2
    assert registry.get_sample_value("bentune_batch_requests_bucket", {"le": "1.0"}) == 0
    assert registry.get_sample_value("bentune_batch_requests_bucket", {"le": "2.0"}) == 1


def test_gauges_follow_the_scheduler(metrics: Metrics, registry: prometheus_client.CollectorRegistry) -> None:
    metrics.changed(waiting_items=3, waiting_tokens=99, busy_slots=2)
    names = ("bentune_queue_requests", "bentune_queue_tokens", "bentune_slots_busy")
    assert [registry.get_sample_value(name) for name in names] == [3, 99, 2]
    metrics.changed(waiting_items=0, waiting_tokens=0, busy_slots=2)
    assert [registry.get_sample_value(name) for name in names] == [0, 0, 2]


def test_answers_and_refusals_are_counted_by_their_label(
    metrics: Metrics, registry: prometheus_client.CollectorRegistry
) -> None:
    metrics.predicted(["good"], 0.75)
    metrics.predicted(["good", "bad"], 0.5)
    metrics.rejected("overloaded")
    assert registry.get_sample_value("bentune_predictions_total", {"label": "good"}) == 2
    assert registry.get_sample_value("bentune_confidence_sum") == 1.25
    assert registry.get_sample_value("bentune_rejected_total", {"reason": "overloaded"}) == 1


def test_several_workers_add_up_on_one_page(metrics: Metrics) -> None:
    modes = {gauge._multiprocess_mode for gauge in (metrics.queue_requests, metrics.queue_tokens, metrics.slots_busy)}
    assert modes == {"livesum"}
    assert {gauge._multiprocess_mode for gauge in (metrics.model_info, metrics.plan_fallback)} == {"max"}
    drift = (metrics.drift_psi, metrics.drift_psi_threshold)
    assert {gauge._multiprocess_mode for gauge in drift} == {"mostrecent"}


def test_importing_the_metrics_leaves_prometheus_alone() -> None:
    """The import must wait until BentoML has set its multi-process directory.

    Otherwise histograms are lost.
    """
    import subprocess
    import sys

    code = "import service.monitoring.metrics, sys; assert 'prometheus_client' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
