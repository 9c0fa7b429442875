"""A verdict is written into a bundle that stays whole: its content, its loading, and what a crash leaves behind."""

import json
import multiprocessing
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bentune.bundle import record_verdict as verdicts
from bentune.bundle.errors import BentuneError, BundleError
from bentune.bundle.manifest import EVIDENCE, MANIFEST, STORE_FILE, open_bundle
from bentune.bundle.record_verdict import add_verdict, mend
from bentune.bundle.store import find_bundle
from bentune.bundle.verdict import VERDICTS, Decision, Difference, Judged, Verdict


def verdict_on(root: Path, decision: Decision = Decision.PROMOTE, reason: str = "because") -> Verdict:
    bundle = open_bundle(root)
    return Verdict(
        decision=decision,
        reasons=[reason],
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        candidate=Judged(tag=bundle.tag, content=bundle.content),
        served=Judged(tag="pets:1", content="old"),
        rows=10,
        data_fingerprint="f",
        metric="accuracy",
        margin=0.01,
        confidence=0.9,
        difference=Difference(value=0.0, low=-0.005, high=0.005),
    )


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    place = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, place)
    return place


def test_the_newest_verdict_is_read_back_and_the_rest_stays(bundle: Path) -> None:
    before = open_bundle(bundle)
    others = before.evidence()
    assert (bundle / STORE_FILE).is_file()  # BentoML's own description, which belongs to no manifest
    store_file = (bundle / STORE_FILE).read_bytes()
    add_verdict(bundle, verdict_on(bundle, Decision.HOLD))
    after = add_verdict(bundle, verdict_on(bundle, Decision.PROMOTE))
    assert after.content == before.content
    assert after.digest != before.digest
    found = after.verdict()
    assert found is not None
    assert found.decision is Decision.PROMOTE
    evidence = after.evidence()
    assert [one["decision"] for one in evidence.pop(VERDICTS)] == ["HOLD", "PROMOTE"]
    assert evidence == others
    assert (bundle / STORE_FILE).read_bytes() == store_file
    assert sorted(bundle.rglob("*.part")) == []


def test_damage_is_never_sealed_in(bundle: Path) -> None:
    verdict = verdict_on(bundle)
    with (bundle / "golden.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(BundleError, match=r"golden\.jsonl was changed"):
        add_verdict(bundle, verdict)
    assert VERDICTS not in json.loads((bundle / EVIDENCE).read_text())


def test_a_verdict_on_another_bundle_is_refused(bundle: Path) -> None:
    other = verdict_on(bundle)
    other = other.model_copy(update={"candidate": Judged(tag="pets:2", content="another")})
    with pytest.raises(BundleError, match="not the bundle that was compared"):
        add_verdict(bundle, other)


@pytest.mark.parametrize("earlier", [0, 1])
def test_what_a_crash_between_the_two_files_leaves_is_mended(bundle: Path, earlier: int) -> None:
    for _ in range(earlier):
        add_verdict(bundle, verdict_on(bundle))
    whole = open_bundle(bundle)
    manifest = (bundle / MANIFEST).read_bytes()
    add_verdict(bundle, verdict_on(bundle, Decision.HOLD))
    (bundle / MANIFEST).write_bytes(manifest)
    with pytest.raises(BundleError):
        open_bundle(bundle)
    assert find_bundle(str(bundle)).digest == whole.digest
    assert len(add_verdict(bundle, verdict_on(bundle)).evidence()[VERDICTS]) == earlier + 1


@pytest.mark.parametrize("name", [EVIDENCE, MANIFEST])
def test_what_a_process_that_was_killed_while_writing_leaves_is_removed(bundle: Path, name: str) -> None:
    whole = open_bundle(bundle)
    (bundle / f"{name}.part").write_bytes(b'{"half of')
    assert find_bundle(str(bundle)).digest == whole.digest


def test_other_changes_of_the_evidence_are_not_mended(bundle: Path) -> None:
    add_verdict(bundle, verdict_on(bundle))
    evidence = json.loads((bundle / EVIDENCE).read_text())
    evidence["evaluation"]["tuned"]["accuracy"]["value"] = 1.0
    (bundle / EVIDENCE).write_text(json.dumps(evidence))
    changed = (bundle / EVIDENCE).read_bytes()
    mend(bundle)
    assert (bundle / EVIDENCE).read_bytes() == changed
    with pytest.raises(BundleError):
        open_bundle(bundle)


def test_mending_leaves_what_is_no_bundle_alone(tmp_path: Path) -> None:
    mend(tmp_path)
    (tmp_path / MANIFEST).write_text('{"files": []}')
    (tmp_path / EVIDENCE).write_text("[" * 5000)
    mend(tmp_path)
    assert len((tmp_path / EVIDENCE).read_text()) == 5000


def test_a_bundle_that_cannot_be_written_is_named(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = verdict_on(bundle)

    def full(path: Path, value: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(verdicts, "write_json", full)
    with pytest.raises(BentuneError, match="No space left on device"):
        add_verdict(bundle, verdict)
    open_bundle(bundle)


def test_two_processes_lose_no_verdict(bundle: Path) -> None:
    context = multiprocessing.get_context("fork")
    given = [verdict_on(bundle, reason=f"number {n}") for n in range(6)]
    writers = [context.Process(target=add_verdict, args=(bundle, one)) for one in given]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    found = {one["reasons"][0] for one in open_bundle(bundle).evidence()[VERDICTS]}
    assert found == {f"number {n}" for n in range(6)}
