"""Over real HTTP: shifted traffic raises drift within 500 inputs, other traffic does not, and the log has its lines."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import sentences

from bentune.bundle.manifest import open_bundle
from bentune.bundle.seen_rows import row_key
from service.monitoring.log_files import log_files
from service.monitoring.prediction_log import LoggedPrediction

FEATURES = ("token_length", "label", "confidence")
AT_ONCE = 50


def like_held_out(seed: int) -> list[str]:
    """500 rows as the model was trained on, and none of those."""
    return [text for part in (0, 1) for text, _ in sentences(250, seed=1000 + 10 * seed + part)]


def ask(server: Any, texts: list[str]) -> None:
    for start in range(0, len(texts), AT_ONCE):
        assert server.predict(texts[start : start + AT_ONCE], truncate=True).status_code == 200


def ratios(server: Any) -> dict[str, float]:
    """Each feature's index over its threshold."""
    return {
        feature: server.metric("bentune_drift_psi", feature=feature)
        / server.metric("bentune_drift_psi_threshold", feature=feature)
        for feature in FEATURES
    }


@pytest.fixture(scope="module")
def logging(serve: Callable[..., Any], tiny_tag: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server that logs half of its inputs with their texts into `directory`."""
    directory = tmp_path_factory.mktemp("log") / "predictions"
    log = {"BENTUNE_PREDICTION_LOG": str(directory), "BENTUNE_PREDICTION_LOG_SAMPLE": "0.5"}
    with serve(tiny_tag, env=log | {"BENTUNE_PREDICTION_LOG_TEXT": "1"}) as server:
        server.until_status("/readyz", 200)
        server.directory = directory
        yield server


def test_traffic_as_it_was_raises_nothing_and_other_traffic_does_within_500_inputs(
    logging: Any, tiny_bundle: Path
) -> None:
    for feature, histogram in open_bundle(tiny_bundle).baseline.features.items():
        assert logging.metric("bentune_drift_psi_threshold", feature=feature) == histogram.threshold

    ask(logging, like_held_out(0)[:-AT_ONCE])
    assert "bentune_drift_psi{" not in logging.client.get("/metrics").text, "too few to say anything"
    for seed in range(1, 5):
        ask(logging, like_held_out(seed))
        assert max(ratios(logging).values()) < 1

    ask(logging, ["a cat", "the dog", "some fish", "it was a lion", "here"] * 100)
    found = ratios(logging)
    assert found["token_length"] > 1
    assert found["label"] > 1


def test_the_log_has_the_share_of_the_inputs_that_was_asked_for_and_every_line_after_the_end(
    serve: Callable[..., Any], tiny_tag: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    env = {"BENTUNE_PREDICTION_LOG": str(tmp_path / "log"), "BENTUNE_PREDICTION_LOG_SAMPLE": "1"}
    secret = "a cat Xq7SECRETq7X"
    with serve(tiny_tag, env=env) as server:
        server.until_status("/readyz", 200)
        answers = server.predict([*like_held_out(0)[:99], secret], truncate=True).json()
        server.until(lambda: server.metric("bentune_prediction_log_total", outcome="written") == 100, "all was written")
        server.predict(secret)
    bundle = open_bundle(tiny_bundle)
    (path,) = log_files(tmp_path / "log")
    assert path.stat().st_mode & 0o777 == 0o600
    assert "SECRET" not in path.read_text()
    assert "SECRET" not in server.printed()
    lines = [LoggedPrediction.model_validate_json(line) for line in path.read_text().splitlines()]
    assert len(lines) == 101, "the last was written although the server was stopped at once"
    assert lines[-1].key == lines[-2].key == row_key(secret).hex()
    assert {line.model for line in lines} == {bundle.tag}
    assert {line.content for line in lines} == {bundle.content}
    for line, answer in zip(lines, answers, strict=False):
        assert line.label == answer[0]["label"]
        assert line.scores == pytest.approx({one["label"]: one["score"] for one in answer}, abs=1e-6)
        assert 3 <= line.tokens <= 24


def test_half_of_the_inputs_are_logged_with_their_texts(logging: Any) -> None:
    ask(logging, like_held_out(9))
    asked = sum(logging.metric("bentune_predictions_total", label=label) for label in ("animal", "food", "tool"))
    assert asked >= 500

    def written() -> float:
        return float(logging.metric("bentune_prediction_log_total", outcome="written"))

    # Five standard deviations of a fair coin.
    logging.until(lambda: abs(written() - asked / 2) < 2.5 * asked**0.5, "half was written")
    texts = {
        json.loads(line)["text"] for path in log_files(logging.directory) for line in path.read_text().splitlines()
    }
    assert len(texts) > 100
    for outcome in ("too_long", "too_many", "failed"):
        assert logging.metric("bentune_prediction_log_total", outcome=outcome) == 0


def test_a_log_that_cannot_be_written_fails_no_request(serve: Callable[..., Any], tiny_tag: str) -> None:
    env = {"BENTUNE_PREDICTION_LOG": "/proc/nowhere", "BENTUNE_PREDICTION_LOG_SAMPLE": "1"}
    with serve(tiny_tag, env=env) as server:
        server.until_status("/readyz", 200)
        assert [server.predict("a cat").status_code for _ in range(5)] == [200] * 5
        server.until(lambda: server.metric("bentune_prediction_log_total", outcome="failed") == 5, "all were counted")
        server.until(lambda: "the prediction log cannot be written" in server.printed(), "it was said")
        assert server.printed().count("the prediction log cannot be written") == 1
