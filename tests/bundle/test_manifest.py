"""A bundle is opened only when every byte of it is what was sealed, and a refusal names the file."""

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from bentune.bundle import manifest as contract
from bentune.bundle.baseline import Baseline, Binned, Histogram
from bentune.bundle.errors import BundleError
from bentune.bundle.files import sha256_file, write_json
from bentune.bundle.manifest import (
    BaseModelInfo,
    Bundle,
    Columns,
    FileEntry,
    GoldenRow,
    ImageLimits,
    Limits,
    Manifest,
    open_bundle,
    seal,
)
from bentune.bundle.plan import Entry, Plan
from bentune.bundle.processor import ImageSettings
from bentune.bundle.seen_rows import RowFilter, SeenRows, labelled_key, row_key
from bentune.bundle.targets.many_labels import ManyLabels
from bentune.bundle.targets.one_label import OneLabel

ZEROS = "0" * 64
LABELS = ["dog", "Kätzchen"]
FEATURES = {
    "token_length": Binned(counts=[1, 1], edges=[5], threshold=0.2),
    "label": Histogram(counts=[1, 1], threshold=0.2),
    "confidence": Binned(counts=[0, 2], edges=[0.5], threshold=0.2),
}
BASELINE = Baseline(rows=2, window=100, looks_a_month=4320, features=FEATURES)
SEEN = SeenRows(
    trained=RowFilter.of([row_key("a dog")]),
    held_out=RowFilter.of([row_key("a cat")]),
    labelled=RowFilter.of([labelled_key(row_key("a dog"), "dog"), labelled_key(row_key("a cat"), "cat")]),
)
GOLDEN = [
    GoldenRow(text="ein Hund, ütf-8", label="dog", scores={"fp32/CPUExecutionProvider": [0.75, 0.25]}, tolerance=0.01),
    GoldenRow(
        text="a cat", text_pair="a dog", label="cat", scores={"fp32/CPUExecutionProvider": [0.1, 0.9]}, tolerance=0.01
    ),
]


def manifest(**more: Any) -> Manifest:
    values: dict[str, Any] = {
        "name": "pets",
        "version": "1",
        "created_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "task": "text-classification",
        "columns": Columns(text="text"),
        "labels": LABELS,
        "limits": Limits(max_tokens=16),
        "base_model": BaseModelInfo(source="package:x/y", sha256=ZEROS),
        "method": {"kind": "lora", "rank": 8},
        "recipe_digest": ZEROS,
        "data_fingerprint": ZEROS,
        "code_revision": "abc",
        "tools": {"python": "3.11"},
        "files": {},
    }
    return Manifest(**values | more)


def fill(root: Path) -> Path:
    """All files of a small bundle but the manifest; nothing in it can be run."""
    (root / "model").mkdir(parents=True)
    (root / "processor").mkdir()
    (root / "model/fp32.onnx").write_bytes(bytes(range(256)))
    (root / "processor/tokenizer.json").write_text('{"model": {}}')
    write_json(root / "processor/settings.json", {"pad_id": 0})
    write_json(root / "plan.json", Plan(token_budget=512))
    write_json(root / "evidence.json", {"evaluation": {"tuned": {"accuracy": 0.5}}})
    write_json(root / "baseline.json", BASELINE)
    write_json(root / "rows.json", SEEN)
    (root / "golden.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in GOLDEN), encoding="utf-8")
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = fill(tmp_path / "bundle")
    seal(root, manifest())
    return root


@pytest.fixture(scope="module")
def shared_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = fill(tmp_path_factory.mktemp("shared") / "bundle")
    seal(root, manifest())
    return root


def edit_manifest(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest and make it consistent again.

    Someone who wants the change to pass would do the same.
    """
    content = json.loads((root / "manifest.json").read_text())
    change(content)
    content["own_sha256"] = ""
    content["own_sha256"] = contract.hashlib.sha256(spelled(content)).hexdigest()
    (root / "manifest.json").write_bytes(spelled(content))


def spelled(content: object) -> bytes:
    return (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode()


def test_what_was_sealed_is_what_is_opened(root: Path) -> None:
    bundle = open_bundle(root)
    assert bundle.manifest.model_copy(update={"files": {}, "own_sha256": ""}) == manifest()
    assert set(bundle.manifest.files) == {
        "baseline.json",
        "rows.json",
        "evidence.json",
        "golden.jsonl",
        "model/fp32.onnx",
        "plan.json",
        "processor/settings.json",
        "processor/tokenizer.json",
    }
    assert bundle.manifest.files["model/fp32.onnx"] == FileEntry(sha256=sha256_file(root / "model/fp32.onnx"), size=256)
    assert bundle.plan == Plan(token_budget=512)
    assert bundle.processor.pad_id == 0
    assert bundle.golden == GOLDEN
    assert bundle.baseline == BASELINE
    assert bundle.evidence() == {"evaluation": {"tuned": {"accuracy": 0.5}}}
    assert bundle.digest == sha256_file(root / "manifest.json")
    assert bundle.tag == "pets:1"


def test_the_digest_changes_with_any_file(root: Path) -> None:
    before = open_bundle(root).digest
    write_json(root / "baseline.json", BASELINE.model_copy(update={"window": 200}))
    seal(root, manifest())
    assert open_bundle(root).digest != before


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.dictionaries(TEXT, JSON, max_size=4), st.lists(TEXT, min_size=2, max_size=4), TEXT)
@examples(50, fixtures=True)
def test_any_manifest_comes_back_equal(
    tmp_path_factory: pytest.TempPathFactory, method: dict[str, Any], labels: list[str], source: str
) -> None:
    root = fill(tmp_path_factory.mktemp("any") / "bundle")
    base = BaseModelInfo(source=source, sha256=ZEROS)
    counted = Histogram(counts=[2] + [0] * (len(labels) - 1), threshold=0.2)
    write_json(root / "baseline.json", BASELINE.model_copy(update={"features": FEATURES | {"label": counted}}))
    sealed = seal(root, manifest(method=method, labels=labels, base_model=base))
    assert open_bundle(root).manifest == sealed


@given(st.data())
@examples(300)
def test_a_changed_byte_in_any_file_is_refused_and_the_file_named(shared_root: Path, data: st.DataObject) -> None:
    files = sorted(path for path in shared_root.rglob("*") if path.is_file())
    assert shared_root / "manifest.json" in files
    file = data.draw(st.sampled_from(files))
    content = file.read_bytes()
    offset = data.draw(st.integers(0, len(content) - 1))
    changed = bytearray(content)
    changed[offset] ^= data.draw(st.integers(1, 255))
    try:
        file.write_bytes(changed)
        with pytest.raises(BundleError) as caught:
            open_bundle(shared_root)
        assert str(file) in str(caught.value)
    finally:
        file.write_bytes(content)
    open_bundle(shared_root)


@given(st.data())
@examples(50)
def test_a_file_that_was_cut_or_grew_is_refused_and_named(shared_root: Path, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(sorted(path for path in shared_root.rglob("*") if path.is_file())))
    content = file.read_bytes()
    changed = content[: data.draw(st.integers(0, len(content) - 1))] if data.draw(st.booleans()) else content + b"\n"
    try:
        file.write_bytes(changed)
        with pytest.raises(BundleError) as caught:
            open_bundle(shared_root)
        assert str(file) in str(caught.value)
    finally:
        file.write_bytes(content)


@pytest.mark.parametrize("name", ["model/fp32.onnx", "plan.json", "golden.jsonl", "processor/tokenizer.json"])
def test_a_missing_file_is_named(root: Path, name: str) -> None:
    (root / name).unlink()
    with pytest.raises(BundleError, match=f"{root / name} is missing"):
        open_bundle(root)


@pytest.mark.parametrize("name", ["extra.bin", "model/int8.onnx", "model/manifest.json", "manifest.json.part"])
def test_a_file_that_the_manifest_does_not_name_is_refused(root: Path, name: str) -> None:
    (root / name).write_bytes(b"")
    with pytest.raises(BundleError, match=f"{root / name} is not named in manifest.json"):
        open_bundle(root)


def test_the_file_that_bentoml_adds_is_not_ours(root: Path) -> None:
    (root / "model.yaml").write_text("name: pets\n")
    digest = open_bundle(root).digest
    (root / "model.yaml").write_text("name: pets\nversion: 1\n")
    assert open_bundle(root).digest == digest


@pytest.mark.parametrize(
    "path", ["/etc/hostname", "../outside", "model/../../outside", "model/./fp32.onnx", "model//fp32.onnx", "a\\b"]
)
def test_a_path_that_leaves_the_bundle_is_refused_before_it_is_read(root: Path, path: str) -> None:
    (root.parent / "outside").write_bytes(b"secret")
    entry = {"sha256": contract.hashlib.sha256(b"secret").hexdigest(), "size": 6}
    edit_manifest(root, lambda content: content["files"].update({path: entry}))
    with pytest.raises(BundleError, match="a path must stay inside the bundle") as caught:
        open_bundle(root)
    assert str(root / "manifest.json") in str(caught.value)


def test_a_plan_cannot_choose_a_file_outside(root: Path) -> None:
    write_json(root / "plan.json", Plan().model_dump(mode="json") | {"variant": "../../outside"})
    (root.parent / "outside.onnx").write_bytes(b"x")
    seal(root, manifest())
    with pytest.raises(BundleError, match=r"plan\.json: variant: String should match pattern"):
        open_bundle(root)


def test_every_variant_that_the_plan_may_choose_must_be_there(root: Path) -> None:
    """Not only the winner: another pod may be sent to any that was measured."""
    write_json(root / "plan.json", Plan(measured=(measured("fp32"), measured("int8-static"))))
    seal(root, manifest())
    with pytest.raises(BundleError, match=r"model/int8-static\.onnx is missing from the bundle"):
        open_bundle(root)
    (root / "model/int8-static.onnx").write_bytes(b"smaller")
    seal(root, manifest())
    assert open_bundle(root).plan.variants == {"fp32", "int8-static"}
    write_json(root / "plan.json", Plan(variant="int8-nncf"))
    seal(root, manifest())
    with pytest.raises(BundleError, match=r"model/int8-nncf\.onnx is missing from the bundle"):
        open_bundle(root)


def measured(variant: str) -> Entry:
    speed = {"inputs_per_second": 1.0, "lone_ms": 1.0, "padding": 0.0}
    return Entry(variant=variant, provider="CPUExecutionProvider", slots=1, threads=1, token_budget=1, **speed)


@pytest.mark.parametrize("target", ["../outside", "fp32.onnx"])
def test_a_symbolic_link_is_refused_wherever_it_leads(root: Path, target: str) -> None:
    (root.parent / "outside").write_bytes((root / "model/fp32.onnx").read_bytes())
    (root / "model/fp32.onnx").rename(root / "model/real.onnx")
    (root / "model/fp32.onnx").symlink_to(root / "model/real.onnx" if target == "fp32.onnx" else root.parent / target)
    with pytest.raises(BundleError, match=r"fp32\.onnx leads outside the bundle"):
        open_bundle(root)


def test_an_unnamed_link_and_a_linked_folder_are_refused(root: Path) -> None:
    (root / "link").symlink_to(root / "model")
    with pytest.raises(BundleError, match="link is a symbolic link"):
        open_bundle(root)
    (root / "link").unlink()
    shutil.move(root / "model", root.parent / "model")
    (root / "model").symlink_to(root.parent / "model")
    with pytest.raises(BundleError, match="leads outside the bundle"):
        open_bundle(root)


def test_a_link_is_not_sealed_either(tmp_path: Path) -> None:
    root = fill(tmp_path / "bundle")
    (root / "notes").symlink_to(root / "plan.json")
    with pytest.raises(BundleError, match="notes is a symbolic link"):
        seal(root, manifest())


@pytest.mark.parametrize("version", [0, 1, 2, 4, "3", None, [2], 2.5])
def test_an_unknown_schema_version_is_refused_with_its_value(root: Path, version: object) -> None:
    edit_manifest(root, lambda content: content.update(schema_version=version))
    with pytest.raises(BundleError, match="schema version") as caught:
        open_bundle(root)
    assert repr(version) in str(caught.value)


@pytest.mark.parametrize("version", [3.0])
def test_a_version_that_merely_equals_ours_is_refused(root: Path, version: object) -> None:
    edit_manifest(root, lambda content: content.update(schema_version=version))
    with pytest.raises(BundleError, match=r"manifest\.json"):
        open_bundle(root)


def test_an_unknown_schema_is_told_before_its_unknown_keys(root: Path) -> None:
    edit_manifest(root, lambda content: content.update(schema_version=4, novelty=True))
    with pytest.raises(BundleError, match="install the Bentune that wrote it"):
        open_bundle(root)


def test_an_unknown_key_is_refused_and_named(root: Path) -> None:
    edit_manifest(root, lambda content: content["limits"].update(max_words=3))
    with pytest.raises(BundleError, match=r"manifest\.json: limits\.Limits\.max_words: Extra inputs"):
        open_bundle(root)


@pytest.mark.parametrize("part", ["plan.json", "processor/settings.json"])
def test_an_unknown_key_in_another_part_is_refused_and_named(root: Path, part: str) -> None:
    write_json(root / part, json.loads((root / part).read_text()) | {"novelty": 1})
    seal(root, manifest())
    with pytest.raises(BundleError, match=f"{root / part}: novelty: Extra inputs"):
        open_bundle(root)


def test_a_wrong_golden_row_is_refused_without_its_text(root: Path) -> None:
    (root / "golden.jsonl").write_text('{"text": "private words", "label": "dog", "scores": "x", "tolerance": 1}\n')
    seal(root, manifest())
    with pytest.raises(BundleError, match=r"golden\.jsonl: scores: ") as caught:
        open_bundle(root)
    assert "private" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"{}", b"\xff\xfe\x00", b"[" * 100_000, b'{"schema_version": ' + b"9" * 5000 + b"}"],
)
def test_what_is_no_manifest_is_refused(root: Path, content: bytes) -> None:
    (root / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest\.json is not a manifest"):
        open_bundle(root)


def test_a_manifest_with_an_older_seal_is_refused(root: Path) -> None:
    content = json.loads((root / "manifest.json").read_text())
    del content["own_sha256"]
    (root / "manifest.json").write_bytes(spelled(content))
    with pytest.raises(BundleError, match="package the model again"):
        open_bundle(root)


@pytest.mark.parametrize("place", ["", "nowhere"])
def test_a_directory_without_a_manifest_is_no_bundle(tmp_path: Path, place: str) -> None:
    with pytest.raises(BundleError, match=r"is not a bundle: it has no manifest\.json"):
        open_bundle(tmp_path / place)


@pytest.mark.parametrize(
    "name",
    [
        "plan.json",
        "evidence.json",
        "golden.jsonl",
        "baseline.json",
        "rows.json",
        "model/fp32.onnx",
        "processor/tokenizer.json",
    ],
)
def test_a_bundle_is_not_sealed_before_all_parts_are_there(tmp_path: Path, name: str) -> None:
    root = fill(tmp_path / "bundle")
    (root / name).unlink()
    with pytest.raises(BundleError, match=f"{root / name} is missing from the bundle"):
        seal(root, manifest())
    assert not (root / "manifest.json").exists()


def test_the_manifest_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fill(tmp_path / "bundle")
    read: list[Path] = []
    real = contract.sha256_file

    def watched(path: Path) -> str:
        assert not (root / "manifest.json").exists()
        read.append(path)
        return real(path)

    monkeypatch.setattr(contract, "sha256_file", watched)
    seal(root, manifest())
    assert len(read) == 8
    assert (root / "manifest.json").is_file()


def test_a_crash_while_sealing_leaves_no_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fill(tmp_path / "bundle")

    def fail(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        seal(root, manifest())
    assert not list(root.glob("manifest.json*"))


def test_sealing_again_takes_the_files_as_they_are_now(root: Path) -> None:
    (root / "model/int8.onnx").write_bytes(b"smaller")
    write_json(root / "plan.json", Plan(variant="int8"))
    seal(root, open_bundle_manifest(root))
    bundle = open_bundle(root)
    assert bundle.plan.variant == "int8"
    assert bundle.manifest.files["model/int8.onnx"].size == 7


def open_bundle_manifest(root: Path) -> Manifest:
    return Manifest.model_validate_json((root / "manifest.json").read_bytes())


@pytest.mark.parametrize("name", ["Pets", "pets!", "-pets", "pets-", "a/b", "", "p" * 64, "über"])
def test_a_name_that_kubernetes_or_bentoml_would_refuse_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        manifest(name=name)


def test_one_label_is_no_classifier() -> None:
    with pytest.raises(ValueError, match="labels"):
        manifest(labels=["only"])


def test_a_bundle_does_not_change(root: Path) -> None:
    bundle: Bundle = open_bundle(root)
    with pytest.raises(ValueError, match="frozen"):
        bundle.manifest.name = "other"  # type: ignore[misc]


def test_the_content_stays_when_only_the_evidence_changes(root: Path) -> None:
    before = open_bundle(root)
    write_json(root / "evidence.json", before.evidence() | {"verdicts": []})
    seal(root, before.manifest)
    after = open_bundle(root)
    assert (after.content == before.content, after.digest == before.digest) == (True, False)
    write_json(root / "baseline.json", BASELINE.model_copy(update={"window": 200}))
    seal(root, before.manifest)
    assert open_bundle(root).content != before.content


def test_seen_rows_are_read(root: Path) -> None:
    assert open_bundle(root).rows() == SEEN


def test_a_verdict_that_no_comparison_wrote_is_damage(root: Path) -> None:
    bundle = open_bundle(root)
    write_json(root / "evidence.json", {"verdicts": [{"decision": "PROMOTE"}]})
    seal(root, bundle.manifest)
    with pytest.raises(BundleError, match="evidence.json"):
        open_bundle(root).verdict()


@pytest.mark.parametrize("content", ["[]", "5", "null", "[" * 100_000, '{"verdicts": 5}'])
def test_evidence_that_nothing_of_ours_wrote_is_damage(content: str, root: Path) -> None:
    bundle = open_bundle(root)
    (root / "evidence.json").write_text(content)
    seal(root, bundle.manifest)
    with pytest.raises(BundleError, match="evidence.json"):
        open_bundle(root).verdict()


def test_a_recipe_that_is_none_is_empty(root: Path) -> None:
    bundle = open_bundle(root)
    for evidence, recipe in (({"recipe": {"seed": 1}}, {"seed": 1}), ({"recipe": [5]}, {}), ({}, {})):
        write_json(root / "evidence.json", evidence)
        seal(root, bundle.manifest)
        assert open_bundle(root).recipe() == recipe


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (
            {"features": FEATURES | {"label": Histogram(counts=[1, 1, 0], threshold=0.2)}},
            "the histogram label has 3 bins, not 2",
        ),
        (
            {"features": FEATURES | {"label": Binned(counts=[1, 1], edges=[0.5], threshold=0.2)}},
            "the histogram label has edges",
        ),
        (
            {"features": FEATURES | {"token_length": Histogram(counts=[1, 1], threshold=0.2)}},
            "the histogram token_length has no edges",
        ),
        (
            {"features": FEATURES | {"truncated": Histogram(counts=[1, 1, 0], threshold=0.2)}},
            "the histogram truncated has 3 bins, not 2",
        ),
        (
            {"features": FEATURES | {"unknown_tokens": Binned(counts=[1, 1], edges=[0.5], threshold=0.2)}},
            "has the histograms token_length, label, confidence, unknown_tokens, not confidence, label, token_length",
        ),
        (
            {"features": {"token_length": FEATURES["token_length"]}},
            "has the histograms token_length, not confidence, label, token_length",
        ),
        (
            {"features": FEATURES | {"length": FEATURES["label"]}},
            "has the histograms token_length, label, confidence, length, not confidence, label, token_length",
        ),
        ({"rows": 3}, "token_length counts 2 rows, not 3"),
        ({"window": 10**9}, "window: Input should be less than"),
    ],
)
def test_a_baseline_that_does_not_fit_the_model_is_refused(root: Path, wrong: dict[str, Any], why: str) -> None:
    write_json(root / "baseline.json", BASELINE.model_copy(update=wrong))
    seal(root, manifest())
    with pytest.raises(BundleError, match=f"baseline.json.*{why}"):
        open_bundle(root)


def test_what_says_nothing_of_any_number_of_labels_is_spelled_as_before(root: Path) -> None:
    seal(root, manifest())
    written = json.loads((root / "manifest.json").read_text())
    assert list(written)[:8] == [
        "schema_version",
        "name",
        "version",
        "created_at",
        "task",
        "columns",
        "labels",
        "limits",
    ]
    assert not written.keys() & {"multi_label", "target"}
    assert open_bundle(root).manifest.target == OneLabel(labels=LABELS)


def test_any_number_of_labels_is_said_and_counts_inputs_without_one(root: Path) -> None:
    seal(root, manifest(multi_label=True))
    with pytest.raises(BundleError, match="the histogram label has 2 bins, not 3"):
        open_bundle(root)
    label = Histogram(counts=[1, 0, 1], threshold=0.2)
    write_json(root / "baseline.json", BASELINE.model_copy(update={"features": FEATURES | {"label": label}}))
    seal(root, manifest(multi_label=True))
    written = json.loads((root / "manifest.json").read_text())
    assert list(written)[5:9] == ["columns", "labels", "multi_label", "limits"]
    assert (written["labels"], written["multi_label"]) == (LABELS, True)
    assert open_bundle(root).manifest.target == ManyLabels(labels=LABELS)


def test_a_target_of_no_kind_that_is_known_is_refused(root: Path) -> None:
    written = json.loads((root / "manifest.json").read_text())
    (root / "manifest.json").write_text(json.dumps(written | {"target": {"kind": "span"}}))
    with pytest.raises(BundleError, match="manifest.json: content: .*the target is none of one_label, many_labels"):
        open_bundle(root)


def test_limits_say_which_settings_the_processor_has(root: Path) -> None:
    images = manifest(limits=ImageLimits(max_tokens=5, max_pixels=9))
    seal(root, images)
    with pytest.raises(BundleError, match="settings.json: "):
        open_bundle(root)
    write_json(root / "processor/settings.json", {"size": [8, 8]})
    seal(root, images)
    opened = open_bundle(root)
    assert (opened.manifest.limits, opened.processor) == (images.limits, ImageSettings(size=(8, 8)))
