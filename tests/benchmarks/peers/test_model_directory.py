"""The directory that other servers load: the run's own weights, with the run's limit of tokens."""

import json
from pathlib import Path

import pytest

from benchmarks.peers.model_directory import write_model_directory
from bentune.bundle.errors import InputError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    files = {
        "merge/stage.json": "{}",
        "merge/model/config.json": '{"id2label": {"0": "good"}}',
        "merge/model/tokenizer.json": "{}",
        "merge/model/tokenizer_config.json": '{"model_max_length": 512, "do_lower_case": true}',
        "merge/model/model.safetensors": "weights",
        "export/model/fp32.onnx": "graph",
    }
    for name, content in files.items():
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path / "run"


def test_holds_what_every_engine_loads(run: Path, tmp_path: Path) -> None:
    written = write_model_directory(run, tmp_path / "peers/model", 256)
    assert {path.name: path.read_text() for path in written.iterdir() if path.name != "tokenizer_config.json"} == {
        "config.json": '{"id2label": {"0": "good"}}',
        "tokenizer.json": "{}",
        "model.safetensors": "weights",
        "model.onnx": "graph",
    }


def test_limits_the_tokens_and_leaves_the_run_as_it_was(run: Path, tmp_path: Path) -> None:
    written = write_model_directory(run, tmp_path / "model", 256)
    assert json.loads((written / "tokenizer_config.json").read_text()) == {
        "model_max_length": 256,
        "do_lower_case": True,
    }
    assert json.loads((run / "merge/model/tokenizer_config.json").read_text())["model_max_length"] == 512


def test_links_weights_of_a_run_named_by_a_relative_path(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    write_model_directory(Path("run"), tmp_path / "elsewhere/model", 256)
    assert (tmp_path / "elsewhere/model/model.onnx").resolve() == run / "export/model/fp32.onnx"


@pytest.mark.parametrize("missing", ["merge/model/model.safetensors", "export/model/fp32.onnx"])
def test_an_unfinished_run_is_refused_and_nothing_is_written(run: Path, tmp_path: Path, missing: str) -> None:
    (run / missing).unlink()
    with pytest.raises(InputError, match=missing):
        write_model_directory(run, tmp_path / "model", 256)
    assert not (tmp_path / "model").exists()
