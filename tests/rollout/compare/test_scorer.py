"""Files are scored with the service's own predictor."""

from pathlib import Path

import pytest

from bentune.bundle.manifest import open_bundle
from bentune.bundle.plan import scores_key
from rollout.compare.scorer import BundleScorer


def test_golden_rows_get_their_golden_scores(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    scorer = BundleScorer(bundle)
    answers = scorer.score([(row.text, row.text_pair) for row in bundle.golden])
    assert scorer.digest == bundle.digest
    key = scores_key(bundle.plan.variant, bundle.plan.provider)
    for row, answer in zip(bundle.golden, answers, strict=True):
        scores = {prediction["label"]: prediction["score"] for prediction in answer}
        assert [scores[label] for label in bundle.manifest.labels] == pytest.approx(row.scores[key], abs=1e-4)
        assert answer == sorted(answer, key=lambda prediction: -prediction["score"])
