"""Whatever changes an answer between training and serving is caught, and the right hop is blamed."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
from command import ask
from safetensors.numpy import load_file, save_file
from tiny import sentences, write_recipe

from bentune.bundle.manifest import GoldenRow
from bentune.cli import main
from service.engine.predictor import Predictor
from training.recipe.file import load_recipe


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run that a test may damage, below `tmp_path`/runs/tiny."""
    copy = tmp_path / "runs" / tiny_run.parent.name / tiny_run.name
    shutil.copytree(tiny_run, copy)
    return copy


@pytest.fixture
def verify(
    tiny_recipe: Path, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[], tuple[int, dict[str, Any]]]:
    """Runs `bentune verify --json` on the copy; gives its exit code and its JSON."""

    def call() -> tuple[int, dict[str, Any]]:
        monkeypatch.setattr(
            "sys.argv", ["bentune", "verify", str(tiny_recipe), "--runs", str(run.parent.parent), "--json"]
        )
        with pytest.raises(SystemExit) as exit_:
            main()
        return exit_.value.code or 0, json.loads(capsys.readouterr().out)

    return call


def corrupt_merged_weight(run: Path) -> None:
    file = run / "merge/model/model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if name.endswith("layer.0.attention.self.query.weight"))
    weights[name] = weights[name] + np.float32(0.5)
    save_file(weights, file, metadata={"format": "pt"})


def merged_weight_is_nan(run: Path) -> None:
    file = run / "merge/model/model.safetensors"
    weights = load_file(file)
    weights["classifier.bias"] = np.full_like(weights["classifier.bias"], np.nan)
    save_file(weights, file, metadata={"format": "pt"})


def swap_labels(config: Path) -> None:
    content = json.loads(config.read_text())
    names = content["id2label"]
    names["0"], names["1"] = names["1"], names["0"]
    config.write_text(json.dumps(content))


def swap_words(tokenizer: Path) -> None:
    content = json.loads(tokenizer.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["cat"], vocabulary["bread"] = vocabulary["bread"], vocabulary["cat"]
    tokenizer.write_text(json.dumps(content))


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def change_onnx_weight(run: Path) -> None:
    model = onnx.load(run / "export/model/fp32.onnx")
    weight = next(node for node in model.graph.initializer if node.name.endswith("classifier.weight"))
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * np.float32(1.1), weight.name))
    onnx.save(model, run / "export/model/fp32.onnx")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def lower_nothing(tokenizer: Path) -> None:
    """No token of these rows changes, for they are in lower case; others' would."""
    content = json.loads(tokenizer.read_text())
    content["normalizer"]["lowercase"] = False
    tokenizer.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "hop", "words"),
    [
        pytest.param(corrupt_merged_weight, "merge", "largest logit difference is", id="weight after merging"),
        pytest.param(merged_weight_is_nan, "merge", "largest logit difference is nan", id="not a number after merging"),
        pytest.param(
            lambda run: swap_labels(run / "merge/model/config.json"), "merge", "label map changed", id="labels at merge"
        ),
        pytest.param(
            lambda run: swap_words(run / "merge/model/tokenizer.json"), "merge", "other tokens", id="tokenizer at merge"
        ),
        pytest.param(
            lambda run: swap_labels(run / "export/config.json"), "export", "label map changed", id="labels at export"
        ),
        pytest.param(
            lambda run: swap_words(run / "export/processor/tokenizer.json"),
            "export",
            "other tokens",
            id="tokenizer at export",
        ),
        pytest.param(
            lambda run: lower_nothing(run / "export/processor/tokenizer.json"),
            "export",
            "tokenizer has changed",
            id="tokenizer that differs on other rows only",
        ),
        pytest.param(
            lambda run: change(run / "merge/model/tokenizer_config.json", do_lower_case=False),
            "merge",
            "tokenizer has changed",
            id="tokenizer settings at merge",
        ),
        pytest.param(
            lambda run: change(run / "export/processor/settings.json", split_special_tokens=True),
            "export",
            "made-up texts with blanks",
            id="special tokens that stand in a text",
        ),
        pytest.param(
            lambda run: change(run / "export/processor/settings.json", truncation_side="left"),
            "export",
            "other tokens",
            id="side that long texts are cut on",
        ),
        pytest.param(change_onnx_weight, "export", "largest logit difference is", id="weight of the ONNX file"),
        pytest.param(
            lambda run: change(run / "export/config.json", id2label={"0": "animal", "1": "food"}),
            "export",
            "label map changed",
            id="label lost at export",
        ),
        pytest.param(
            lambda run: cut(run / "merge/model/model.safetensors"), "merge", "cannot be run", id="half of the weights"
        ),
        pytest.param(
            lambda run: cut(run / "merge/model/tokenizer.json"), "merge", "cannot be run", id="half of the tokenizer"
        ),
        pytest.param(lambda run: cut(run / "export/model/fp32.onnx"), "export", "cannot be run", id="half of the ONNX"),
        pytest.param(
            lambda run: cut(run / "export/processor/tokenizer.json"),
            "export",
            "cannot be run",
            id="half of the served tokenizer",
        ),
    ],
)
def test_damage_is_blamed_on_its_hop(
    damage: Callable[[Path], None], hop: str, words: str, run: Path, verify: Callable[[], Any]
) -> None:
    before = (run / "verify/parity.json").read_bytes()
    damage(run)
    code, said = verify()
    assert code == 1
    assert said["gate"] == hop
    assert f"the hop `{hop}`" in said["error"]
    assert words in said["error"]
    # The earlier proof stands as it was, and nothing half-written is left beside it.
    assert (run / "verify/parity.json").read_bytes() == before
    assert [path.name for path in run.glob("*.partial")] == []


def test_a_merge_that_loses_the_adapter_is_blamed(
    lora_run: Path, lora_recipe: Path, copied: Callable[[Path], Path]
) -> None:
    """The base's own weights stand in the place of the merged ones.

    Every file is whole, and only the answers differ.
    """
    runs = copied(lora_run)
    run = runs / lora_run.parent.name / lora_run.name
    merged, base = load_file(run / "merge/model/model.safetensors"), load_file(base_of(lora_recipe))
    lost = {name: base.get(name.removeprefix("bert."), weight) for name, weight in merged.items()}
    save_file(lost, run / "merge/model/model.safetensors", metadata={"format": "pt"})
    answer = ask("verify", lora_recipe, "--runs", runs, "--json")
    assert (answer.code, answer.json["gate"], answer.json["exit_code"]) == (1, "merge", 1)
    answer = ask("verify", lora_recipe, "--runs", runs)
    assert answer.code == 1
    assert answer.out == ""
    assert "error: verify: the hop `merge` (trained -> merged): the largest logit difference is" in answer.err
    # Nothing is packaged on top of it, and the run mends itself.
    assert "was changed after it was written" in ask("export", lora_recipe, "--runs", runs).err


def base_of(recipe: Path) -> Path:
    return Path(load_recipe(recipe).recipe.model) / "model.safetensors"


def test_answers_that_depend_on_the_batch_are_blamed_on_it(
    verify: Callable[[], Any], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Predictor.logits

    def dependent(self: Predictor, batch: Any) -> Any:
        return original(self, batch) + np.float32(0.01) * (len(batch) - 1)

    monkeypatch.setattr(Predictor, "logits", dependent)
    (run / "verify/stage.json").unlink()
    code, said = verify()
    assert (code, said["gate"]) == (1, "batch")
    assert "the hop `batch` (fp32 ONNX -> fp32 ONNX in batches)" in said["error"]


@pytest.mark.parametrize(
    ("override", "hop"),
    [("verify.export_tolerance=1e-12", "export"), ("verify.merge_tolerance=1e-12", "merge")],
)
def test_the_tolerances_are_those_of_the_recipe(
    override: str, hop: str, lora_run: Path, lora_recipe: Path, copied: Callable[[Path], Path]
) -> None:
    runs = copied(lora_run)
    answer = ask("verify", lora_recipe, "--runs", runs, "--json", "--set", override)
    assert answer.code == 1
    assert answer.json["gate"] == hop
    flips = "verify.label_flips=40"
    assert ask("verify", lora_recipe, "--runs", runs, "--set", override, "--set", flips).code == 1
    assert ask("verify", lora_recipe, "--runs", runs, "--set", "verify.rows=7", "--json").json["summary"]["rows"] == 7


def test_pairs_of_texts_go_through_every_hop(tiny_model: Path, tmp_path: Path) -> None:
    rows = [(first, second, label) for (first, label), (second, _) in zip(sentences(60), sentences(60, 1), strict=True)]
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("first", "second", "label"), *rows])
    data = {"source": str(tmp_path / "pairs.csv"), "columns": {"text": "first", "text_pair": "second"}}
    recipe = write_recipe(tmp_path / "pairs.yaml", tiny_model, "", data=data, train={"epochs": 1})
    for stage in ("data", "train", "merge", "export"):
        assert ask(stage, recipe, "--runs", tmp_path / "runs").code == 0
    answer = ask("verify", recipe, "--runs", tmp_path / "runs", "--json")
    assert answer.code == 0
    golden = (Path(answer.json["directory"]) / "golden.jsonl").read_text().splitlines()
    pairs = {(row.text, row.text_pair) for row in map(GoldenRow.model_validate_json, golden)}
    assert pairs
    assert len(pairs - {(first, second) for first, second, _ in rows}) == 2
    assert ("a", "a") in pairs


def test_an_undamaged_run_passes_without_being_done_again(verify: Callable[[], Any]) -> None:
    code, said = verify()
    assert (code, said["redone"]) == (0, False)


def test_what_is_recorded_for_each_hop(tiny_run: Path) -> None:
    parity = json.loads((tiny_run / "verify/parity.json").read_text())
    assert parity["rows"] == 40
    assert [hop["hop"] for hop in parity["hops"]] == ["merge", "export", "batch"]
    for hop in parity["hops"]:
        assert hop["rows"] == 42  # and the longest input and the shortest
        assert 0 <= hop["mean_difference"] <= hop["largest_difference"] < hop["tolerance"]
        assert (hop["label_flips"], hop["rows_with_other_tokens"], hop["problems"]) == (0, 0, [])
    for digest in ("token_digest", "tokenizer_digest", "label_digest"):
        assert len({hop[digest] for hop in parity["hops"]}) == 1


def test_golden_rows_are_held_out_rows_with_every_label(tiny_run: Path) -> None:
    golden = [
        GoldenRow.model_validate_json(line) for line in (tiny_run / "verify/golden.jsonl").read_text().splitlines()
    ]
    held_out = set(pq.read_table(tiny_run / "data/test.parquet")["text"].to_pylist())
    assert len(golden) == 12
    assert {row.text for row in golden[:-2]} <= held_out
    assert len(golden[-2].text.split()) > 24
    assert golden[-1].text == "a"
    assert {row.label for row in golden} == {"animal", "food", "tool"}
