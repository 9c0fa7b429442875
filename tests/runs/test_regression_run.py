"""One number a row from the data to the served answer, a comparison, a replay and the next version."""

import asyncio
import json
import random
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import prometheus_client
import pytest
import torch
from starlette.requests import Request
from tiny import Quiet, sentences, write_csv, write_recipe
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bentune.bundle.errors import InputError
from bentune.bundle.manifest import Bundle, open_bundle, seal
from bentune.bundle.targets.number import Number
from bentune.bundle.verdict import CompareSettings, Decision
from rollout.compare.compare import compare
from rollout.compare.decision import Comparison
from rollout.compare.models import BundleScorer
from rollout.predict import predict_file
from rollout.replay import disagreement, read_log, require_same_labels
from service.app import Application
from service.http.requests import Incoming
from service.settings import Settings
from training.data import stage as data
from training.pipeline.stage import Context
from training.prove.evaluation import Evaluation
from training.recipe.recipe import Recipe

STARS = {"animal": 1.0, "food": 3.0, "tool": 5.0}
TEXTS = ["the cat and the dog", "bread was near the soup", "hammer of the saw", "cat bread drill"]
SETTINGS = CompareSettings(resamples=100, latency_rows=10, margin=5, max_latency_ratio=20)


def rated(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts, and about as many stars as the words say."""
    noise = random.Random(seed)
    return [(text, f"{STARS[label] + noise.gauss(0, 0.3):.2f}") for text, label in sentences(count, seed)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    from training.pipeline.pipeline import run_all
    from training.pipeline.run_dir import RunDir
    from training.recipe.file import load_recipe

    place = tmp_path_factory.mktemp("rated")
    rows = write_csv(place / "rows.csv", rated(300), ("text", "stars"))
    columns = {"source": str(rows), "columns": {"label": "stars"}, "split": {"test": 0.2, "validation": 0.1}}
    path = write_recipe(place / "rated.yaml", tiny_model, rows, task="text-regression", data=columns)
    recipe = load_recipe(path).recipe
    with RunDir.open(place / "runs", recipe.name) as found:
        list(run_all(recipe, found, Quiet()))
        return found.root


@pytest.fixture(scope="module")
def bundle(run: Path) -> Bundle:
    return open_bundle(Path(json.loads((run / "package/artifacts.json").read_text())["bundle"]))


def torch_numbers(run: Path, bundle: Bundle, texts: list[str]) -> np.ndarray:
    """Return the merged torch model's number for each text alone.

    Nothing of ours but its weights, mean and scale is used.
    """
    target = bundle.manifest.target
    assert isinstance(target, Number)
    model = AutoModelForSequenceClassification.from_pretrained(run / "merge/model").eval()
    tokenizer = AutoTokenizer.from_pretrained(run / "merge/model")
    with torch.inference_mode():
        found = [
            model(**tokenizer(text, truncation=True, max_length=24, return_tensors="pt")).logits.item()
            for text in texts
        ]
    return np.array(found) * target.scale + target.center


def test_it_learned_and_its_model_says_what_it_is(run: Path, bundle: Bundle) -> None:
    found = Evaluation.model_validate_json((run / "evaluate/evaluation.json").read_bytes())
    assert found.headline == "mean_absolute_error"
    before, after = found.base.metrics, found.tuned.metrics
    assert after["mean_absolute_error"].high < 0.6 < before["mean_absolute_error"].low
    assert after["spearman"].low > 0.7 > before["spearman"].high
    assert found.difference.metrics["mean_absolute_error"].high < 0
    assert all(one.confidence is None for one in found.mistakes + found.changed)
    target = bundle.manifest.target
    assert isinstance(target, Number)
    assert (target.labels, target.center, target.scale) == (
        ["stars"],
        pytest.approx(3, abs=0.2),
        pytest.approx(1.7, abs=0.2),
    )
    assert json.loads((run / "merge/model/config.json").read_text())["problem_type"] == "regression"
    hops = json.loads((run / "verify/parity.json").read_text())["hops"]
    assert [hop["hop"] for hop in hops] == ["merge", "export", "batch"]
    assert not any(hop["problems"] or hop["label_flips"] for hop in hops)
    assert set(bundle.baseline.features) == {"token_length", "truncated", "unknown_tokens", "value"}


def test_the_report_and_the_card_speak_of_a_number(run: Path, bundle: Bundle) -> None:
    from training.pipeline.pipeline import standing
    from training.pipeline.run_dir import RunDir
    from training.report.facts import facts_of
    from training.report.model_card import model_card
    from training.report.page import page_of

    recipe = Recipe.model_validate(bundle.recipe())
    facts = facts_of(recipe, standing(recipe, RunDir(run)))
    card, page = model_card(facts), page_of(facts, [], {}, "abc", "rated.yaml")
    for text in (card, page):
        assert "mean absolute error" in text
        assert "spearman" in text
    assert "the number 'stars'" in card
    for absent in ("Confusion matrix", "Calibration", "% sure"):
        assert absent not in page


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> prometheus_client.CollectorRegistry:
    fresh = prometheus_client.CollectorRegistry()
    for kind in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(prometheus_client, kind, partial(getattr(prometheus_client, kind), registry=fresh))
    return fresh


def incoming(body: dict[str, Any]) -> Incoming:
    pieces = iter([{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}])

    async def receive() -> dict[str, Any]:
        if (piece := next(pieces, None)) is None:
            await asyncio.Event().wait()
        return piece or {}

    return Incoming(Request({"type": "http", "method": "POST", "path": "/predict", "headers": []}, receive))


def test_the_service_answers_with_the_number_and_logs_it(
    run: Path, bundle: Bundle, registry: prometheus_client.CollectorRegistry, tmp_path: Path
) -> None:
    settings = Settings(prediction_log=str(tmp_path / "log"), prediction_log_sample=1, prediction_log_text=True)
    answers: dict[str, Any] = {}

    async def serve() -> None:
        application = Application(bundle, settings)
        application.start()
        assert application.ready
        answers["info"] = application.info()
        for name, asked in (("many", {"inputs": TEXTS}), ("one", {"inputs": TEXTS[0]}), ("raw", {"raw_scores": True})):
            response = await application.answer(incoming({"inputs": TEXTS} | asked))
            answers[name] = json.loads(response.body)
        await application.stop()

    asyncio.run(serve())
    expected = torch_numbers(run, bundle, TEXTS)
    assert [[one["label"] for one in row] for row in answers["many"]] == [["stars"]] * len(TEXTS)
    assert [row[0]["score"] for row in answers["many"]] == pytest.approx(expected, abs=1e-3)
    assert answers["one"] == answers["many"][0]
    target = bundle.manifest.target
    raw = np.array([[row[0]["score"]] for row in answers["raw"]])
    assert target.scores(raw)[:, 0] == pytest.approx(expected, abs=1e-3)
    assert answers["info"]["target"]["kind"] == "number"
    assert answers["info"]["evidence"].keys() >= {"mean_absolute_error", "mean_absolute_error_before_tuning"}
    assert registry.get_sample_value("bentune_predictions_total", {"label": "stars"}) == 2 * len(TEXTS) + 1
    assert registry.get_sample_value("bentune_confidence_count") == 0
    log = read_log(tmp_path / "log", pairs=False, most=100)
    require_same_labels(log.rows, target)
    found = disagreement(BundleScorer(bundle), log.rows, lambda _: None, target)
    assert (found.rate.flips, found.rate.rows) == (0, 2 * len(TEXTS) + 1)
    moved = open_bundle(shifted(bundle, tmp_path / "moved"))
    found = disagreement(BundleScorer(moved), log.rows, lambda _: None, moved.manifest.target)
    assert found.rate.flips == found.rate.rows


def shifted(bundle: Bundle, place: Path) -> Path:
    """A copy that answers with a star more: the same graph, and the same logits."""
    shutil.copytree(bundle.root, place)
    target = bundle.manifest.target
    assert isinstance(target, Number)
    more = target.model_copy(update={"center": target.center + 1})
    seal(place, bundle.manifest.model_copy(update={"target": more}))
    return place


def test_a_comparison_is_of_errors(bundle: Bundle, tmp_path: Path) -> None:
    rows = write_csv(tmp_path / "rows.csv", rated(160, seed=77))
    same = tmp_path / "same"
    shutil.copytree(bundle.root, same)
    found = compare(str(same), str(bundle.root), rows, report=Quiet(), settings=SETTINGS, out=tmp_path / "out")
    assert found.verdict.decision is Decision.PROMOTE
    assert found.verdict.metric == "mean absolute error"
    assert {one.by for one in found.slices} == {"stars", "characters"}
    assert Comparison.model_validate_json((tmp_path / "out/comparison.json").read_bytes()) == found
    page = (tmp_path / "out/comparison.html").read_text()
    assert "Mean absolute error" in page
    assert "Calibration" not in page
    bad = compare(str(shifted(bundle, tmp_path / "bad")), str(bundle.root), rows, report=Quiet(), settings=SETTINGS)
    assert bad.verdict.decision is Decision.HOLD
    assert bad.verdict.difference.high < -0.5
    metrics = {one.name: one for one in bad.metrics}
    assert metrics["mean absolute error"].candidate > 0.7 > metrics["mean absolute error"].served
    # A star more changes no order.
    assert metrics["spearman"].difference.value == pytest.approx(0, abs=1e-9)


def test_a_golden_row_that_gets_another_number_keeps_the_service_from_turning_ready(
    bundle: Bundle, registry: prometheus_client.CollectorRegistry, tmp_path: Path
) -> None:
    del registry
    application = Application(open_bundle(shifted(bundle, tmp_path / "bad")), Settings())
    application.start()
    assert not application.ready


def test_only_models_of_one_kind_are_compared(bundle: Bundle, tiny_bundle: Path, tmp_path: Path) -> None:
    rows = write_csv(tmp_path / "rows.csv", rated(20))
    labels = open_bundle(tiny_bundle).manifest.labels
    assert labels != bundle.manifest.labels
    with pytest.raises(InputError, match="do not have the same labels|only models of one kind"):
        compare(str(bundle.root), str(tiny_bundle), rows, report=Quiet(), settings=SETTINGS)


def test_rows_that_are_no_numbers_are_named(bundle: Bundle, tmp_path: Path) -> None:
    rows = write_csv(tmp_path / "rows.csv", [("the cat", "4"), ("the dog", "four")])
    with pytest.raises(InputError, match=r"row 1 .*column 'label' has a text that is no number") as caught:
        compare(str(bundle.root), str(bundle.root), rows, report=Quiet(), settings=SETTINGS)
    assert "four" not in str(caught.value)
    values = bundle.recipe()
    values["data"] |= {"source": str(rows), "columns": {"text": "text", "label": "label"}}
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(InputError, match="'label' has a text that is no number"):
        data.run(Context(Recipe.model_validate(values), work, {}, Quiet()))


def test_a_file_is_scored(run: Path, bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("\n".join(TEXTS))
    predict_file(BundleScorer(bundle), tmp_path / "in.txt", tmp_path / "out.jsonl", progress=lambda _: None)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["prediction"][0]["score"] for line in lines] == pytest.approx(
        torch_numbers(run, bundle, TEXTS), abs=1e-3
    )


def test_the_next_version_keeps_the_sides_of_its_rows(bundle: Bundle, tmp_path: Path) -> None:
    grown = write_csv(tmp_path / "rows.csv", [*rated(300), *rated(100, seed=5)], ("text", "stars"))
    values = bundle.recipe()
    values |= {"parent": bundle.tag, "data": values["data"] | {"source": str(grown)}}
    work = tmp_path / "work"
    work.mkdir()
    result = data.run(Context(Recipe.model_validate(values), work, {}, Quiet()))
    assert result.parent is not None
    assert result.parent.missing == result.parent.relabelled == 0
    assert result.parent.fresh == pytest.approx(20, abs=4)
    lines = [json.loads(line) for line in (work / "held_out.jsonl").read_text().splitlines()]
    assert all(isinstance(line["label"], float) for line in lines)
