"""Rows with any number of labels from the data to the served answer: the run that other tests build on too."""

import asyncio
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import prometheus_client
import pytest
import torch
from starlette.requests import Request
from tiny import Quiet, tagged, write_tagged
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bentune.bundle.errors import BundleError, InputError
from bentune.bundle.hardware import describe
from bentune.bundle.manifest import Bundle, open_bundle, seal
from bentune.bundle.targets.many_labels import ManyLabels
from bentune.bundle.targets.one_label import OneLabel
from bentune.bundle.verdict import CompareSettings, Decision
from bentune.quality.many_labels import ManyLabelsQuality
from rollout.compare.compare import compare
from rollout.compare.decision import Comparison
from rollout.compare.models import BundleScorer
from rollout.predict import predict_file
from rollout.replay import disagreement, read_log, require_same_labels
from service.app import Application
from service.engine.predictor import Predictor
from service.http.requests import Incoming
from service.monitoring.prediction_log import PredictionLog
from service.settings import Settings
from training.data import stage as data
from training.pipeline.stage import Context
from training.prove.evaluation import Evaluation
from training.prove.parity import Hop
from training.recipe.recipe import Recipe

LABELS = ["animal", "food", "tool"]
TEXTS = [
    "the cat and the hammer",
    "bread was near the soup",
    "it was of the and with",
    "dog horse apple rice drill saw",
]
SETTINGS = CompareSettings(resamples=100, latency_rows=10, margin=5, max_latency_ratio=20)


@pytest.fixture(scope="module")
def bundle(tagged_run: Path) -> Bundle:
    return open_bundle(Path(json.loads((tagged_run / "package/artifacts.json").read_text())["bundle"]))


def torch_scores(run: Path, texts: list[str]) -> np.ndarray:
    """Return the sigmoids of the calibrated torch model's logits, each text alone.

    Nothing of ours but its weights is used.
    """
    directory = run / "calibrate/model"
    model = AutoModelForSequenceClassification.from_pretrained(directory).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    with torch.inference_mode():
        logits = [
            model(**tokenizer(text, truncation=True, max_length=24, return_tensors="pt")).logits[0] for text in texts
        ]
    return torch.sigmoid(torch.stack(logits)).numpy()


def incoming(body: dict[str, Any]) -> Incoming:
    """A request from a client that waits for its answer."""
    pieces = iter([{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}])

    async def receive() -> dict[str, Any]:
        if (piece := next(pieces, None)) is None:
            await asyncio.Event().wait()
        return piece or {}

    return Incoming(Request({"type": "http", "method": "POST", "path": "/predict", "headers": []}, receive))


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> prometheus_client.CollectorRegistry:
    fresh = prometheus_client.CollectorRegistry()
    for kind in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(prometheus_client, kind, partial(getattr(prometheus_client, kind), registry=fresh))
    return fresh


def test_it_learned_and_its_model_says_what_it_is(tagged_run: Path, bundle: Bundle) -> None:
    found = Evaluation.model_validate_json((tagged_run / "evaluate/evaluation.json").read_bytes())
    assert found.tuned.micro_f1.value > 0.9 > found.base.micro_f1.value
    assert found.tuned.hamming_loss is not None
    assert found.tuned.hamming_loss.value < 0.1
    assert found.difference.macro_f1.low > 0.1
    assert found.temperature is not None
    assert found.changed
    assert all({*one.gold.split(", ")} <= {*LABELS, "(none)"} for one in found.changed)
    config = json.loads((tagged_run / "merge/model/config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert bundle.manifest.target == ManyLabels(labels=LABELS)
    hops = [Hop.model_validate(hop) for hop in json.loads((tagged_run / "verify/parity.json").read_text())["hops"]]
    assert [hop.hop for hop in hops] == ["merge", "calibrate", "export", "batch"]
    assert not any(hop.problems or hop.label_flips for hop in hops)


def test_the_report_and_the_card_are_of_any_number_of_labels(tagged_run: Path, bundle: Bundle) -> None:
    from training.pipeline.pipeline import standing
    from training.pipeline.run_dir import RunDir
    from training.report.facts import facts_of
    from training.report.model_card import model_card
    from training.report.page import page_of

    recipe = Recipe.model_validate(bundle.recipe())
    card = model_card(facts_of(recipe, standing(recipe, RunDir(tagged_run))))
    assert "| hamming loss |" in card
    assert "any number of its labels" in card
    facts = facts_of(recipe, standing(recipe, RunDir(tagged_run)))
    page = page_of(facts, [], {}, "abc", "tagged.yaml")
    assert "accuracy counts rows with all of theirs" in page
    assert "Confusion matrix" not in page


def test_the_predictors_scores_are_the_torch_models_sigmoids(tagged_run: Path, bundle: Bundle) -> None:
    found = Predictor.from_bundle(bundle, describe()).score([(text, None) for text in TEXTS])
    scores = np.array([[{one["label"]: one["score"] for one in row}[label] for label in LABELS] for row in found])
    np.testing.assert_allclose(scores, torch_scores(tagged_run, TEXTS), atol=1e-5)
    assert abs(scores.sum(axis=1) - 1).max() > 0.3
    assert [[one["score"] for one in row] for row in found] == [sorted(row, reverse=True) for row in scores.tolist()]
    for row in bundle.golden:
        (expected,) = torch_scores(tagged_run, [row.text])
        np.testing.assert_allclose(next(iter(row.scores.values())), expected, atol=1e-5)


def test_the_service_answers_counts_and_logs_every_label(
    tagged_run: Path, bundle: Bundle, registry: prometheus_client.CollectorRegistry, tmp_path: Path
) -> None:
    settings = Settings(prediction_log=str(tmp_path / "log"), prediction_log_sample=1, prediction_log_text=True)
    answers: dict[str, Any] = {}

    async def serve() -> None:
        application = Application(bundle, settings)
        application.start()
        assert application.ready
        answers["info"] = application.info()
        for name, more in (("all", {}), ("top", {"top_k": 1}), ("raw", {"raw_scores": True})):
            response = await application.answer(incoming({"inputs": TEXTS, **more}))
            answers[name] = json.loads(response.body)
        await application.stop()

    asyncio.run(serve())
    assert answers["info"]["multi_label"] is True
    expected = torch_scores(tagged_run, TEXTS)
    for row, scores in zip(answers["all"], expected, strict=True):
        assert {one["label"]: one["score"] for one in row} == pytest.approx(
            dict(zip(LABELS, scores.tolist(), strict=True)), abs=1e-5
        )
    assert answers["top"] == [row[:1] for row in answers["all"]]
    odds = [{one["label"]: 1 / (1 + np.exp(-one["score"])) for one in row} for row in answers["raw"]]
    assert odds[0] == pytest.approx({one["label"]: one["score"] for one in answers["all"][0]}, abs=1e-5)
    above = expected > 0.5
    counted = {
        label: registry.get_sample_value("bentune_predictions_total", {"label": label}) for label in [*LABELS, "(none)"]
    }
    assert counted == {
        **dict(zip(LABELS, 3.0 * above.sum(axis=0), strict=True)),
        "(none)": 3.0 * (~above.any(axis=1)).sum(),
    }
    assert counted["(none)"] == 3
    assert sum(value or 0 for value in counted.values()) > 3 * len(TEXTS)
    # The log says that its scores are of labels that do not exclude each other, and is replayed so.
    log = read_log(tmp_path / "log", pairs=False, most=100)
    assert {row.kind for row in log.rows} == {"many_labels"}
    require_same_labels(log.rows, bundle.manifest.target)
    with pytest.raises(BundleError, match="gives an input one label, the log is of a model that gives any number"):
        require_same_labels(log.rows, OneLabel(labels=LABELS))
    found = disagreement(BundleScorer(bundle), log.rows, lambda _: None, bundle.manifest.target)
    assert (found.rate.flips, found.rate.rows) == (0, 12)
    assert found.moved[-1] < 1e-5
    assert {"(none)", "animal, tool", "animal, food, tool"} <= found.by_label.keys()


def relabelled(bundle: Bundle, place: Path) -> Path:
    """A copy whose labels changed places."""
    shutil.copytree(bundle.root, place)
    seal(place, bundle.manifest.model_copy(update={"target": ManyLabels(labels=[*LABELS[1:], LABELS[0]])}))
    return place


def test_a_replay_with_another_model_counts_the_answers_that_change(bundle: Bundle, tmp_path: Path) -> None:
    writer = PredictionLog(tmp_path / "log", 1.0, 2**20, texts=True, count=lambda _: None)
    answers = BundleScorer(bundle).score([(text, None) for text in TEXTS])
    for text, answer in zip(TEXTS, answers, strict=True):
        kept, scores = writer.keep((text, None)), {one["label"]: one["score"] for one in answer}
        assert kept is not None
        writer.put(kept, tokens=5, truncated=False, scores=scores, model="a:1", content="c", target="many_labels")
    writer.close()
    log = read_log(tmp_path / "log", pairs=False, most=100)
    other = open_bundle(relabelled(bundle, tmp_path / "other"))
    found = disagreement(BundleScorer(other), log.rows, lambda _: None, other.manifest.target)
    # Answers with no label or with all labels stay.
    assert found.to == {("animal, tool", "animal, food"): 1, ("food", "tool"): 1}
    assert [flip.before for flip in found.flips]
    assert found.moved[-1] > 0.5


def test_a_comparison_is_of_rows_that_are_right_as_a_whole(bundle: Bundle, tmp_path: Path) -> None:
    data = write_tagged(tmp_path / "rows.jsonl", tagged(160, seed=77))
    same = tmp_path / "same"
    shutil.copytree(bundle.root, same)
    found = compare(str(same), str(bundle.root), data, report=Quiet(), settings=SETTINGS, out=tmp_path / "out")
    assert found.verdict.decision is Decision.PROMOTE
    assert found.verdict.metric == "subset accuracy"
    assert {one.value for one in found.slices if one.by == "label"} == {*LABELS, "(none)"}
    assert Comparison.model_validate_json((tmp_path / "out/comparison.json").read_bytes()) == found
    assert ManyLabelsQuality.words.note in (tmp_path / "out/comparison.html").read_text()
    bad = compare(str(relabelled(bundle, tmp_path / "bad")), str(bundle.root), data, report=Quiet(), settings=SETTINGS)
    assert bad.verdict.decision is Decision.HOLD
    # Rows without a label and with all three are right in both; that is a quarter of them.
    metrics = {one.name: one for one in bad.metrics}
    assert metrics["subset accuracy"].candidate == pytest.approx(0.25, abs=0.05)
    assert metrics["subset accuracy"].served > 0.85
    assert metrics["calibration error"].candidate > metrics["calibration error"].served
    assert bad.flips.lost == bad.test.lost > 80
    assert all(", " in one.label or one.label in LABELS for one in bad.flips.lost_examples)


def test_only_models_of_one_kind_are_compared(bundle: Bundle, tiny_bundle: Path, tmp_path: Path) -> None:
    data = write_tagged(tmp_path / "rows.jsonl", tagged(20))
    with pytest.raises(InputError, match="gives a text any number of labels, .* one label; only models of one kind"):
        compare(str(bundle.root), str(tiny_bundle), data, report=Quiet(), settings=SETTINGS)


def test_rows_of_a_comparison_have_lists_of_labels_that_the_models_know(bundle: Bundle, tmp_path: Path) -> None:
    for labels, words in (("animal", "write a JSON list"), (["fish"], "none of the models' labels")):
        (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "the cat", "label": labels}))
        with pytest.raises(InputError, match=f"row 0 .line 1.: .*{words}"):
            compare(str(bundle.root), str(bundle.root), tmp_path / "rows.jsonl", report=Quiet(), settings=SETTINGS)


def test_a_file_is_scored_with_every_label(tagged_run: Path, bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("\n".join(TEXTS))
    predict_file(BundleScorer(bundle), tmp_path / "in.txt", tmp_path / "out.jsonl", progress=lambda _: None)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    for line, scores in zip(lines, torch_scores(tagged_run, TEXTS), strict=True):
        assert {one["label"]: one["score"] for one in line["prediction"]} == pytest.approx(
            dict(zip(LABELS, scores.tolist(), strict=True)), abs=1e-5
        )


def test_the_next_version_keeps_the_sides_of_its_rows(bundle: Bundle, tmp_path: Path) -> None:
    known = [row["text"] for row in map(json.loads, Path(bundle.recipe()["data"]["source"]).read_text().splitlines())]
    grown = write_tagged(tmp_path / "rows.jsonl", [*tagged(320), *tagged(120, seed=5)])
    values = bundle.recipe()
    values |= {"parent": bundle.tag, "data": values["data"] | {"source": str(grown)}}
    work = tmp_path / "work"
    work.mkdir()
    result = data.run(Context(Recipe.model_validate(values), work, {}, Quiet()))
    assert result.parent is not None
    assert result.parent.missing == result.parent.relabelled == 0
    assert result.parent.fresh == pytest.approx(24, abs=3)
    lines = [json.loads(line) for line in (work / "held_out.jsonl").read_text().splitlines()]
    assert {line["text"] for line in lines if line["set"] == "reference"} <= {*known}
    assert all(isinstance(line["label"], list) for line in lines)
    labels = [{*line["label"]} for line in lines if line["set"] == "fresh"]
    assert all(sum(label in one for one in labels) >= 0.3 * len(labels) for label in LABELS)
    one_label = values | {"data": values["data"] | {"multi_label": False}}
    (tmp_path / "again").mkdir()
    with pytest.raises(InputError, match="data.multi_label: rows of .* have any number of labels"):
        data.run(Context(Recipe.model_validate(one_label), tmp_path / "again", {}, Quiet()))
