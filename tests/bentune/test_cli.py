"""The command line: exit codes, one JSON object for machines, and what is refused before anything starts."""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentune.cli import main

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bentune(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs a command in this process; gives its exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["bentune", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        printed = capsys.readouterr()
        return int(exit_.value.code or 0), printed.out, printed.err

    return call


def parsed(printed: str) -> Any:
    """The one JSON object that a command printed."""
    return json.loads(printed)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["run"], "Missing argument 'RECIPE'"),
        (["run", "nowhere.yaml"], "nowhere.yaml: no such recipe file"),
        (["predict", "--model", "nowhere", "--input", "a.csv", "--output", "b.jsonl"], "nowhere is not in the BentoML"),
        (["serve", "nowhere"], "nowhere is not in the BentoML store"),
    ],
)
def test_wrong_usage_and_input_exit_with_2_and_say_why(arguments: list[str], words: str, bentune: Call) -> None:
    code, out, err = bentune(*arguments)
    assert (code, out) == (2, "")
    assert words in err


def test_with_json_errors_are_one_object_on_stdout(bentune: Call) -> None:
    for arguments in (["frobnicate", "--json"], ["run", "nowhere.yaml", "--json"]):
        code, out, _ = bentune(*arguments)
        assert code == parsed(out)["exit_code"] == 2


def test_explain_shows_each_value_and_its_origin(bentune: Call, tiny_recipe: Path) -> None:
    code, out, _ = bentune("recipe", "explain", tiny_recipe, "--set", "train.epochs=2", "--json")
    rows = {row["key"]: row for row in parsed(out)}
    assert code == 0
    assert (rows["train.epochs"]["value"], rows["train.epochs"]["origin"]) == (2.0, "--set")
    assert (rows["max_tokens"]["value"], rows["max_tokens"]["origin"]) == (24, str(tiny_recipe))
    assert (rows["seed"]["value"], rows["seed"]["origin"]) == (42, "default")


def test_doctor_shows_versions_and_the_cpu(bentune: Call) -> None:
    code, out, _ = bentune("doctor", "--json")
    found = {row["name"]: row for row in parsed(out)}
    assert code == 0
    assert int(found["cores"]["value"]) >= 1
    assert found["torch"]["fine"]
    assert {"cpu", "isa", "memory limit", "bentoml", "onnxruntime", "git"} <= found.keys()


def test_data_says_what_was_left_out(bentune: Call, tiny_recipe: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    lines = [f"text number {number},{'ab'[number % 2]}" for number in range(20)]
    rows.write_text("text,label\n" + "\n".join([*lines, lines[0], ",a"]) + "\n")
    options = ["--set", f"data.source={rows}", "--set", "data.invalid_rows=drop", "--runs", tmp_path / "runs"]
    code, _, err = bentune("data", tiny_recipe, *options)
    assert code == 0
    assert "rows: 16 train, 4 test; labels: a, b" in err
    assert "left out: 1 duplicate" in err
    assert "left out: 1 column 'text' is empty" in err


def test_predict_checks_every_row_before_it_scores_one(bentune: Call, tiny_tag: str, tmp_path: Path) -> None:
    rows, output = tmp_path / "rows.csv", tmp_path / "out.jsonl"
    rows.write_text("text\n" + "a cat\n" * 2000 + '""\n')
    code, _, err = bentune("predict", "--model", tiny_tag, "--input", rows, "--output", output)
    assert code == 2
    assert "row 2000" in err
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_predict_refuses_a_pair_column_for_single_texts(
    bentune: Call, tiny_tag: str, tiny_csv: Path, tmp_path: Path
) -> None:
    options = ["--input", tiny_csv, "--output", tmp_path / "out.jsonl", "--pair-column", "label"]
    code, _, err = bentune("predict", "--model", tiny_tag, *options)
    assert code == 2
    assert "takes single texts" in err


def test_serve_refuses_wrong_settings_and_a_busy_port_before_it_starts(
    bentune: Call, tiny_tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        code, _, err = bentune("serve", tiny_tag, "--port", listener.getsockname()[1])
    assert (code, "cannot be listened on" in err) == (2, True)
    monkeypatch.setenv("BENTUNE_MAX_INPUTS", "many")
    code, _, err = bentune("serve", tiny_tag)
    assert (code, "BENTUNE_MAX_INPUTS='many'" in err) == (2, True)
