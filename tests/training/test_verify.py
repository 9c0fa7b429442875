"""Whatever changes an answer between training and serving is caught, and the right hop is blamed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from bentune.cli import main
from service.contract import GoldenRow


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
            "tokenizer is not the same",
            id="tokenizer that differs on other rows only",
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
    # What was proven before stands as it was; nothing half-written is left beside it.
    assert (run / "verify/parity.json").read_bytes() == before
    assert [path.name for path in run.glob("*.partial")] == []


def test_an_undamaged_run_passes_without_being_done_again(verify: Callable[[], Any]) -> None:
    code, said = verify()
    assert (code, said["redone"]) == (0, False)


def test_what_is_recorded_for_each_hop(tiny_run: Path) -> None:
    parity = json.loads((tiny_run / "verify/parity.json").read_text())
    assert parity["rows"] == 40
    assert [hop["hop"] for hop in parity["hops"]] == ["merge", "export", "batch"]
    for hop in parity["hops"]:
        assert hop["rows"] == 40
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
    assert {row.text for row in golden} <= held_out
    assert {row.label for row in golden} == {"animal", "food", "tool"}
