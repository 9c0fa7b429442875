"""The preflight finds what is wrong with a base model before the first epoch, and once."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bentune.bundle.errors import InputError
from training import preflight as module
from training.pipeline.follow import Silent
from training.pipeline.layout import DataFiles
from training.pipeline.run_dir import RunDir
from training.preflight import preflight, rehearse, require_exportable
from training.prove import export
from training.recipe.file import load_recipe
from training.recipe.recipe import Recipe


@pytest.fixture
def recipe(tiny_recipe: Path) -> Recipe:
    return load_recipe(tiny_recipe).recipe


@pytest.fixture
def data(tiny_run: Path) -> DataFiles:
    return DataFiles(tiny_run / "data")


def test_the_stages_run_on_the_longest_rows_one_that_is_cut_and_one_of_a_letter(
    recipe: Recipe, data: DataFiles, tmp_path: Path
) -> None:
    rehearse(recipe, data, tmp_path)
    parity = json.loads((tmp_path / "verify/parity.json").read_text())
    assert [hop["hop"] for hop in parity["hops"]] == ["merge", "export", "batch"]
    texts = pq.read_table(tmp_path / "data/test.parquet")["text"].to_pylist()
    everything = pq.read_table(data.train)["text"].to_pylist()
    assert parity["rows"] == len(texts) <= 16
    assert sorted(map(len, texts))[-8:] == sorted(map(len, everything))[-8:]
    golden = [json.loads(line)["text"] for line in (tmp_path / "verify/golden.jsonl").read_text().splitlines()]
    assert golden[-1] == "a"
    assert len(golden[-2].split()) > recipe.max_tokens


def test_what_passed_is_not_run_again_and_another_method_is(
    recipe: Recipe, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(module, "rehearse", lambda recipe, *_: calls.append(recipe.method.name))
    with RunDir.open(tmp_path, "tiny") as run:
        (run.root / "data").symlink_to(tiny_run / "data")
        preflight(recipe, run, Silent())
        preflight(recipe, run, Silent())
        assert calls == ["full"]
        other = recipe.model_copy(update={"max_tokens": 12})
        preflight(other, run, Silent())
        assert calls == ["full", "full"]
        warm = recipe.model_copy(
            update={"parent": "tiny:1", "train": recipe.train.model_copy(update={"warm_start": True})}
        )
        preflight(warm, run, Silent())
        assert len(calls) == 2
        assert not (run.root / module.WORK).exists()
    with RunDir.open(tmp_path, "tiny", new=True) as run:
        (run.root / "data").symlink_to(tiny_run / "data")
        preflight(other, run, Silent())
        assert len(calls) == 2


def test_an_error_names_the_model_and_leaves_nothing_behind(
    recipe: Recipe, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("Unsupported: aten::odd\nmore")

    monkeypatch.setattr(export, "main_export", broken)
    with RunDir.open(tmp_path, "tiny") as run:
        (run.root / "data").symlink_to(tiny_run / "data")
        with pytest.raises(InputError) as caught:
            preflight(recipe, run, Silent())
        assert str(caught.value).startswith(
            f"model: {recipe.model} did not pass the preflight, before any training: export: Optimum could not export "
        )
        assert not (run.root / module.WORK).exists()
        assert not (tmp_path / module.FILE).exists()


def test_an_architecture_that_optimum_does_not_export_is_named(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "canine", "transformers_version": "4.57.6"}))
    with pytest.raises(InputError, match="Optimum cannot export the architecture 'canine' to ONNX for text-classif"):
        require_exportable(recipe.model_copy(update={"model": str(tmp_path)}))
    assert require_exportable(recipe) is None
