"""Two real bundles on the same rows: the verdict, what is refused, and what is written where."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from judged import worse, write_rows
from tiny import Quiet, sentences

from bentune.bundle.errors import BundleError, InputError
from bentune.bundle.files import write_json
from bentune.bundle.manifest import EVIDENCE, open_bundle, seal
from bentune.bundle.targets.one_label import OneLabel
from bentune.bundle.verdict import CompareSettings, Decision
from rollout.compare.compare import compare, require_extra
from rollout.compare.decision import Comparison
from rollout.compare.models import open_side

SETTINGS = CompareSettings(resamples=100, latency_rows=10, margin=5, max_latency_ratio=20, slices=["set"])


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", 120)


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    place = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, place)
    return place


def judge(candidate: Path | str, served: Path | str, data: Path, **more: Any) -> Comparison:
    return compare(str(candidate), str(served), data, report=Quiet(), **({"settings": SETTINGS} | more))


def test_a_bundle_against_itself_is_promoted(bundle: Path, tiny_bundle: Path, rows: Path, tmp_path: Path) -> None:
    found = judge(bundle, tiny_bundle, rows, out=tmp_path / "out")
    assert found.verdict.decision is Decision.PROMOTE
    assert (found.test.gained, found.test.lost) == (0, 0)
    assert found.verdict.rows == 120
    assert found.verdict.candidate == found.verdict.served
    assert found.size == 1
    assert {(one.by, one.value) for one in found.slices} >= {("set", "fresh"), ("set", "reference"), ("label", "tool")}
    assert sum(one.rows for one in found.slices if one.by == "characters") == 120
    judged = open_bundle(bundle).verdict()
    assert judged == found.verdict
    written = Comparison.model_validate_json((tmp_path / "out/comparison.json").read_bytes())
    assert written == found
    assert "PROMOTE" in (tmp_path / "out/comparison.html").read_text()
    assert found.verdict.earlier == 0
    assert judge(bundle, tiny_bundle, rows).verdict.earlier == 1


def test_a_worse_one_is_held_and_its_texts_are_in_the_page_only(
    tiny_bundle: Path, bundle: Path, rows: Path, tmp_path: Path
) -> None:
    bad = worse(bundle, tmp_path / "worse")
    found = judge(bad, tiny_bundle, rows, out=tmp_path / "out")
    assert found.verdict.decision is Decision.HOLD
    assert found.flips.lost == found.test.lost > 80
    assert found.verdict.difference.high < -0.5
    assert [one.vetoes for one in found.slices] == [True] * len(found.slices)
    example = found.flips.lost_examples[0]
    text = json.loads(rows.read_text().splitlines()[example.row])["text"]
    assert text in (tmp_path / "out/comparison.html").read_text()
    for written in ((tmp_path / "out/comparison.json").read_text(), (bad / EVIDENCE).read_text()):
        assert text not in written
    # In the other direction, the labels still meet in the candidate's order.
    assert judge(bundle, bad, rows).verdict.difference.value == pytest.approx(-found.verdict.difference.value)


def test_rows_that_were_trained_on_are_refused_or_left_out(
    bundle: Path, tiny_bundle: Path, tiny_csv: Path, rows: Path, tmp_path: Path
) -> None:
    before = (bundle / EVIDENCE).read_bytes()
    with pytest.raises(InputError, match="the candidate handmade:.* was trained on 240 of the 300 rows"):
        judge(bundle, tiny_bundle, tiny_csv, settings=SETTINGS.model_copy(update={"slices": []}))
    assert (bundle / EVIDENCE).read_bytes() == before
    mixed = tmp_path / "mixed.jsonl"
    trained = [{"text": text, "label": label, "set": "old"} for text, label in sentences(300)[:40]]
    mixed.write_text(rows.read_text() + "".join(json.dumps(row) + "\n" for row in [*trained, trained[0]]))
    found = judge(bundle, tiny_bundle, mixed, leave_out_trained=True)
    assert found.left_out.trained + found.verdict.rows == 160
    assert found.left_out.trained > 20
    assert found.left_out.copies == 1
    assert all(" takes one in " in line for line in found.left_out.filters)


def test_gains_elsewhere_do_not_pay_for_losses_in_a_frozen_slice(
    tiny_bundle: Path, bundle: Path, rows: Path, tmp_path: Path
) -> None:
    """The candidate would be promoted but for its loss in the frozen slice.

    It is right in all rows but the reference's, and the served one only in those.
    """
    bad, few = worse(bundle, tmp_path / "worse"), tmp_path / "few.jsonl"
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    for number, row in enumerate(lines):
        row["set"] = "fresh" if number > 3 else "reference"
        # The bad model answers with the next label.
        labels = ["animal", "food", "tool"]
        row["label"] = labels[(labels.index(row["label"]) + 1) % 3] if number <= 3 else row["label"]
    few.write_text("".join(json.dumps(row) + "\n" for row in lines))
    good = Path(shutil.copytree(tiny_bundle, tmp_path / "good"))
    assert judge(good, bad, few).verdict.decision == "PROMOTE"
    found = judge(good, bad, few, frozen={"set": "reference"})
    assert found.verdict.decision == "HOLD"
    assert "frozen and worse where set is reference: by -100.00 points in 4 rows" in found.verdict.reasons[1]
    assert found.settings.frozen == {"set": "reference"}
    assert open_bundle(good).verdict() == found.verdict
    with pytest.raises(InputError, match=r"no row is left where set is gone, which is frozen"):
        judge(good, bad, few, frozen={"set": "gone"})


def test_settings_are_the_candidates_recipe(bundle: Path, tiny_bundle: Path, rows: Path) -> None:
    opened = open_bundle(bundle)
    evidence = opened.evidence()
    assert CompareSettings.model_validate(evidence["recipe"]["compare"]) == CompareSettings()
    evidence["recipe"]["compare"] |= {"margin": 7.5, "resamples": 100, "latency_rows": 10, "max_latency_ratio": 20}
    write_json(bundle / EVIDENCE, evidence)
    seal(bundle, opened.manifest)
    found = judge(bundle, tiny_bundle, rows, settings=None, slices=["set"])
    assert found.verdict.margin == 0.075
    assert found.settings.slices == ["set"]
    assert judge(bundle, tiny_bundle, rows, settings=None, margin=3.0).verdict.margin == 0.03
    evidence["recipe"]["compare"]["margin"] = -1
    write_json(bundle / EVIDENCE, evidence)
    seal(bundle, opened.manifest)
    with pytest.raises(BundleError, match=r"recipe\.compare\.margin"):
        judge(bundle, tiny_bundle, rows, settings=None)


def test_labels_that_the_recipe_renamed(bundle: Path, tiny_bundle: Path, rows: Path, tmp_path: Path) -> None:
    opened = open_bundle(bundle)
    evidence = opened.evidence()
    evidence["recipe"]["data"]["labels"] = {"beast": "animal"}
    write_json(bundle / EVIDENCE, evidence)
    seal(bundle, opened.manifest)
    given = tmp_path / "given.jsonl"
    given.write_text(rows.read_text().replace('"animal"', '"beast"'))
    assert judge(bundle, tiny_bundle, given).verdict.rows == 120
    with pytest.raises(InputError, match="has 'beast', which is none of the models' labels"):
        judge(tiny_bundle, bundle, given)


def test_other_labels_are_named(bundle: Path, tiny_bundle: Path, rows: Path) -> None:
    manifest = open_bundle(bundle).manifest
    seal(bundle, manifest.model_copy(update={"target": OneLabel(labels=["animal", "food", "gear"])}))
    with pytest.raises(InputError, match=r"only handmade:\S+ has 'gear'; only handmade:\S+ has 'tool'"):
        judge(bundle, tiny_bundle, rows)


def test_the_same_labels_in_another_order_are_the_same_model(bundle: Path, tiny_bundle: Path, rows: Path) -> None:
    with open_side(str(worse(tiny_bundle, bundle.parent / "worse"))) as bad, open_side(str(tiny_bundle)) as good:
        assert set(bad.target.labels) == set(good.target.labels)
        assert bad.target.labels != good.target.labels
        np.testing.assert_array_equal(bad.score([("a cat", None)]), good.score([("a cat", None)]))


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    require_extra()
    monkeypatch.setitem(__import__("sys").modules, "scipy.stats", None)
    with pytest.raises(InputError, match=r"comparing needs scipy.stats: pip install 'bentune\[compare\]'"):
        require_extra()


def test_out_that_cannot_be_made_is_refused_first(bundle: Path, tiny_bundle: Path, rows: Path) -> None:
    with pytest.raises(InputError, match="--out .*cannot be made"):
        judge(bundle, tiny_bundle, rows, out=rows / "sub")
    assert open_bundle(bundle).verdict() is None
