"""Packaging: the bundle has every part of the contract and its evidence; a failure leaves nothing in the stores."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bentoml
import pytest
from results import RESULTS

from bentune.bundle.errors import BentuneError
from bentune.bundle.files import sha256_file, write_json
from bentune.bundle.manifest import MODULE, open_bundle
from bentune.bundle.seen_rows import RowFilter, SeenRows, row_key
from training import package
from training.pipeline.results import ParentRows, StageRecord
from training.recipe.file import digest, load_recipe


@pytest.fixture
def asked(tiny_run: Path, tiny_recipe: Path, context: Callable[..., Any]) -> Any:
    stages = {name: tiny_run / name for name in ("data", "train", "evaluate", "export", "verify", "plan")}
    return context(load_recipe(tiny_recipe).recipe, **stages)


def stored() -> set[str]:
    return {str(model.tag) for model in bentoml.models.list()} | {str(bento.tag) for bento in bentoml.bentos.list()}


def summary(stage: Path) -> Any:
    return json.loads((stage / "stage.json").read_text())["summary"]


def test_the_bundle_has_every_part_of_the_contract(tiny_run: Path, tiny_bundle: Path, tiny_recipe: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    manifest = bundle.manifest
    assert set(manifest.files) == {
        *("model/fp32.onnx", "processor/settings.json", "processor/tokenizer.json"),
        *("baseline.json", "evidence.json", "golden.jsonl", "plan.json", "report.md", "pareto.png", "rows.json"),
        "README.md",
    }
    for name in ("model/fp32.onnx", "processor/tokenizer.json", "processor/settings.json"):
        assert sha256_file(tiny_bundle / name) == sha256_file(tiny_run / "export" / name)
    assert (tiny_bundle / "baseline.json").read_bytes() == (tiny_run / "plan/baseline.json").read_bytes()
    for name in ("plan.json", "golden.jsonl", "report.md", "pareto.png"):
        assert (tiny_bundle / name).read_bytes() == (tiny_run / "plan" / name).read_bytes()
    recipe = load_recipe(tiny_recipe).recipe
    assert (manifest.name, manifest.task, manifest.labels) == (recipe.name, recipe.task, ["animal", "food", "tool"])
    assert manifest.limits.max_tokens == 24
    assert manifest.columns.model_dump() == {"text": "text", "text_pair": None}
    assert manifest.base_model.model_dump() == {
        "source": recipe.model,
        "sha256": summary(tiny_run / "train")["base_sha256"],
    }
    assert manifest.method == {"name": "full"}
    assert manifest.recipe_digest == digest(recipe)
    assert manifest.data_fingerprint == summary(tiny_run / "data")["fingerprint"]
    assert {"python", "torch", "transformers", "optimum-onnx", "onnxruntime", "bentoml"} <= manifest.tools.keys()
    assert manifest.code_revision
    assert bundle.plan.measured
    assert len(bundle.golden) == 12


def test_the_evidence_travels_with_the_bundle(tiny_run: Path, tiny_bundle: Path, tiny_recipe: Path) -> None:
    evidence = open_bundle(tiny_bundle).evidence()
    assert evidence.keys() == {"evaluation", "parity", "data", "training", "recipe"}
    assert evidence["evaluation"] == json.loads((tiny_run / "evaluate/evaluation.json").read_text())
    assert evidence["parity"] == json.loads((tiny_run / "verify/parity.json").read_text())
    assert evidence["data"] == summary(tiny_run / "data")
    assert evidence["training"] == summary(tiny_run / "train")
    assert evidence["recipe"] == load_recipe(tiny_recipe).recipe.model_dump(mode="json")


def test_the_bundle_and_the_bento_have_one_tag_that_says_when_and_what(tiny_run: Path) -> None:
    artifacts = json.loads((tiny_run / "package/artifacts.json").read_text())
    assert artifacts["model"] == artifacts["bento"]
    model, bento = bentoml.models.get(artifacts["model"]), bentoml.bentos.get(artifacts["bento"])
    assert (str(model.path), str(bento.path)) == (artifacts["bundle"], artifacts["bento_path"])
    assert model.info.module == MODULE
    assert model.info.labels == {"task": "text-classification"}
    name, version = artifacts["model"].split(":")
    bundle = open_bundle(Path(artifacts["bundle"]))
    assert (bundle.manifest.name, bundle.manifest.version, bundle.digest) == (name, version, artifacts["digest"])
    assert (
        version == f"{bundle.manifest.created_at:%Y%m%d-%H%M%S}-{sha256_file(tiny_run / 'export/model/fp32.onnx')[:6]}"
    )
    # The packed service contains no training code.
    source = Path(bento.path) / "src"
    packed = {path.relative_to(source).as_posix() for path in source.rglob("*.py")}
    assert {"service/engine/predictor.py", "bentune/bundle/manifest.py"} <= packed
    assert {name for name in packed if not name.startswith(("service/", "bentune/bundle/"))} <= {"bentune/__init__.py"}


def test_what_was_stored_is_looked_for_in_the_store(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert package.still_there(tiny_run / "package")
    artifacts = json.loads((tiny_run / "package/artifacts.json").read_text())
    for key, value in (("model", "tiny:gone"), ("bento", "tiny:gone"), ("bundle", "/elsewhere")):
        (tmp_path / "artifacts.json").write_text(json.dumps(artifacts | {key: value}))
        assert not package.still_there(tmp_path)


def fail_to_build(asked: Any, error: type[BaseException]) -> BaseException:
    before = stored()
    with pytest.raises(error) as caught:
        package.run(asked)
    assert stored() == before
    assert list(asked.work.iterdir()) == []
    return caught.value


def test_a_build_that_fails_leaves_no_model_in_the_store(
    asked: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for room in ("service", "bentune/bundle"):
        shutil.copytree(package.ROOT / room, tmp_path / "root" / room)
    (tmp_path / "root/bentofile.yaml").write_text("service: service.nowhere:service\n")
    monkeypatch.setattr(package, "ROOT", tmp_path / "root")
    message = str(fail_to_build(asked, BentuneError))
    assert "-m bentoml build . --version" in message
    assert "nowhere" in message


def test_a_wheel_without_its_bentofile_says_so(asked: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(package, "ROOT", tmp_path)
    message = str(fail_to_build(asked, BentuneError))
    assert message == f"{tmp_path} has no bentofile.yaml: run from a checkout (`make install`), a wheel cannot build"


@pytest.mark.parametrize("error", [KeyboardInterrupt, subprocess.TimeoutExpired])
def test_an_interruption_leaves_no_model_in_the_store(
    error: type[BaseException], asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise error(*(["bentoml", 600] if error is subprocess.TimeoutExpired else []))

    monkeypatch.setattr(package, "_build", stop)
    fail_to_build(asked, error)


def test_a_bundle_that_does_not_open_is_not_left_in_the_store(asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise BentuneError("changed")

    monkeypatch.setattr(package, "open_bundle", refuse)
    fail_to_build(asked, BentuneError)


def test_a_part_that_is_missing_leaves_no_model_in_the_store(asked: Any, tmp_path: Path, context: Any) -> None:
    for name in ("baseline.json", "golden.jsonl"):
        copy = Path(shutil.copytree(asked.inputs["plan"], tmp_path / name))
        (copy / name).unlink()
        fail_to_build(context(asked.recipe, **(dict(asked.inputs) | {"plan": copy})), FileNotFoundError)


def test_a_deleted_model_is_packaged_again_and_nothing_else_is(
    tiny_run: Path, tiny_recipe: Path, copied: Callable[[Path], Path]
) -> None:
    from command import ask

    runs = copied(tiny_run)
    artifacts = json.loads((tiny_run / "package/artifacts.json").read_text())
    first = ask("package", tiny_recipe, "--runs", runs, "--force", "--json").json["summary"]
    assert first["model"] != artifacts["model"]
    bentoml.models.delete(first["model"])
    stages = ask("run", tiny_recipe, "--runs", runs, "--json").json["stages"]
    assert [stage["stage"] for stage in stages if stage["redone"]] == ["package"]
    assert str(bentoml.models.get(stages[-1]["summary"]["model"]).path) == stages[-1]["summary"]["bundle"]
    for summary_ in (first, stages[-1]["summary"]):
        bentoml.bentos.delete(summary_["bento"])
    bentoml.models.delete(stages[-1]["summary"]["model"])


@pytest.mark.parametrize("gone", [0, 7])
@pytest.mark.parametrize("warm", [False, True])
def test_a_warm_start_keeps_the_filters_of_rows_that_left_the_data(
    gone: int,
    warm: bool,
    tiny_recipe: Path,
    tmp_path: Path,
    context: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, other, parent = (RowFilter.of([row_key(name)]) for name in ("one", "other", "parent"))
    own = SeenRows(trained=one, held_out=one, labelled=one)
    before = own.model_copy(update={"trained": parent, "before": [other]})
    monkeypatch.setattr(package, "open_parent", lambda tag: SimpleNamespace(rows=lambda: before))
    write_json(tmp_path / "rows.json", own)
    rows = dict.fromkeys(ParentRows.model_fields, 0) | {"tag": "tiny:1", "content": "", "trained_gone": gone}
    result = RESULTS["data"].model_copy(update={"parent": ParentRows.model_validate(rows)})
    record = StageRecord(stage="data", key="", files={}, seconds=1, summary=result.written())
    write_json(tmp_path / "stage.json", record)
    recipe = load_recipe(tiny_recipe, ["parent=tiny:1", f"train.warm_start={str(warm).lower()}"]).recipe
    seen = package._seen(context(recipe, data=tmp_path))
    assert seen.before == (([other, parent] if gone else [other]) if warm else [])
    assert seen.model_copy(update={"before": []}) == own
