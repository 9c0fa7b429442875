"""The command line: exit codes, one JSON object for machines, and what is refused before anything starts."""

import csv
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from apart import Apart
from command import ask

from bentune.bundle.errors import BentuneError, GateError, InputError

Call = Callable[..., tuple[int, str, str]]


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
    assert "22 rows read, 20 used; split 20% by label, seed 42" in err
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in err.splitlines() if "│" in line]
    assert ["1", "duplicate", "left out", "rows.csv line 22"] in cells
    assert ["1", "column 'text' is empty", "left out", "rows.csv line 23"] in cells
    assert [cells[-3], cells[-2], cells[-1]] == [["a", "8", "2"], ["b", "8", "2"], ["all", "16", "4"]]


def test_predict_checks_every_row_before_it_scores_one(bentune: Call, tiny_tag: str, tmp_path: Path) -> None:
    rows, output = tmp_path / "rows.csv", tmp_path / "out.jsonl"
    rows.write_text("text\n" + "a cat\n" * 2000 + '""\n')
    code, _, err = bentune("predict", "--model", tiny_tag, "--input", rows, "--output", output, "--strict")
    assert code == 2
    assert "row 2000" in err
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_predict_answers_the_other_rows_and_counts_the_errors(bentune: Call, tiny_tag: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes("1;ein H\xfcndchen\n2;\n3;a cat\n".encode("latin-1"))
    form = ("--encoding", "cp1252", "--delimiter", ";", "--header", "id,text")
    given = ("predict", "--model", tiny_tag, "--input", tmp_path / "rows.csv", *form)
    code, out, err = bentune(*given, "--output", tmp_path / "out.csv", "--json")
    assert code == 0, err
    assert (json.loads(out)["rows"], json.loads(out)["errors"]) == (3, 1)
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert [(row["id"], row["text"]) for row in found] == [("1", "ein H\xfcndchen"), ("2", ""), ("3", "a cat")]
    assert [bool(row["predicted_label"]) for row in found] == [True, False, True]
    for option, value in (("--encoding", "nonsense"), ("--delimiter", "::"), ("--header", "a,a")):
        code, _, err = bentune(*given, option, value, "--output", tmp_path / "other.csv")
        assert code == 2
        assert option in err


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


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (GateError("merge", "verify: the hop `merge`: out of bounds"), 1, "verify: the hop `merge`: out of bounds"),
        (InputError("rows.csv has no column 'text'"), 2, "rows.csv has no column 'text'"),
        (BentuneError("the disk is full"), 3, "the disk is full"),
        (ZeroDivisionError("by zero"), 3, "ZeroDivisionError: by zero (BENTUNE_DEBUG=1 shows where)"),
        (KeyboardInterrupt(), 130, "interrupted; the same command resumes from here"),
    ],
)
def test_each_kind_of_failure_has_its_exit_code(
    error: BaseException,
    code: int,
    message: str,
    bentune: Call,
    tiny_recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("training.pipeline.pipeline.run_stage", fail)
    command = ("verify", tiny_recipe, "--runs", tmp_path)
    found, out, err = bentune(*command)
    assert (found, out, err.strip()) == (code, "", f"error: {message}")
    found, out, _ = bentune(*command, "--json")
    gate = {"gate": "merge"} if isinstance(error, GateError) else {}
    assert (found, parsed(out)) == (code, {"error": message, "exit_code": code} | gate)


def test_where_it_broke_is_shown_on_request(
    bentune: Call, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("training.pipeline.pipeline.run_stage", lambda *_, **__: 1 / 0)
    monkeypatch.setenv("BENTUNE_DEBUG", "1")
    code, _, err = bentune("verify", tiny_recipe, "--runs", tmp_path)
    assert code == 3
    assert "Traceback" in err


@pytest.fixture
def runs(tiny_run: Path, tmp_path: Path) -> Path:
    """A directory with a copy of the tiny run."""
    shutil.copytree(tiny_run, tmp_path / "runs/tiny" / tiny_run.name)
    return tmp_path / "runs"


def test_a_run_with_nothing_to_do_says_where_everything_is(bentune: Call, tiny_recipe: Path, runs: Path) -> None:
    code, out, err = bentune("run", tiny_recipe, "--runs", runs)
    assert (code, out) == (0, "")
    assert err.count("nothing changed") == 8
    (run,) = (runs / "tiny").iterdir()
    artifacts = json.loads((run / "package/artifacts.json").read_text())
    assert f"serve it: bentune serve {artifacts['bento']}" in err
    code, out, err = bentune("run", tiny_recipe, "--runs", runs, "--json")
    assert (code, err) == (0, "")
    found = parsed(out)
    assert found["run"] == str(run)
    assert [(stage["stage"], stage["redone"]) for stage in found["stages"]] == [
        (stage, False) for stage in ("data", "train", "merge", "evaluate", "export", "verify", "plan", "package")
    ]
    assert found["stages"][-1]["summary"] == artifacts


def test_a_stage_of_a_new_run_stands_beside_the_others(bentune: Call, tiny_recipe: Path, runs: Path) -> None:
    code, out, _ = bentune("data", tiny_recipe, "--runs", runs, "--new", "--json")
    found = parsed(out)
    assert (code, found["stage"], found["redone"]) == (0, "data", True)
    assert len(list((runs / "tiny").iterdir())) == 2
    # The newest goes on, and its next stage has not been done.
    code, out, _ = bentune("merge", tiny_recipe, "--runs", runs, "--json")
    assert (code, parsed(out)["error"]) == (
        2,
        f"merge: {Path(found['directory']).parent}/train is not there yet: run `bentune train` first, or `bentune run`",
    )


def test_explain_is_a_table_for_people(bentune: Call, tiny_recipe: Path) -> None:
    code, out, err = bentune("recipe", "explain", tiny_recipe, "--set", "seed=7")
    assert (code, err) == (0, "")
    (line,) = [line for line in out.splitlines() if "seed" in line and "--set" in line]
    assert "7" in line
    code, out, err = bentune("recipe", "explain", tiny_recipe, "--set", "sead=7")
    assert (code, out) == (2, "")
    assert "sead: no such key; did you mean `seed`?" in err


def test_doctor_names_what_is_missing(bentune: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bentune.commands.doctor.TRAIN", ("not-on-this-machine",))
    code, out, _ = bentune("doctor", "--json")
    found = {row["name"]: row for row in parsed(out)}
    assert code == 0
    assert found["not-on-this-machine"] == {
        "name": "not-on-this-machine",
        "value": "missing",
        "note": "pip install '.[train]'",
        "fine": False,
    }
    code, out, _ = bentune("doctor")
    assert "not-on-this-machine" in out


def test_help_and_version(bentune: Call) -> None:
    code, out, _ = bentune("--help")
    assert code == 0
    assert "0 success, 1 refused by a gate, 2 wrong usage or input, 3 unexpected error" in " ".join(out.split())
    code, out, _ = bentune("--version")
    assert (code, out.split()[-1]) == (0, version("bentune"))
    code, out, err = bentune("run", "a.yaml", "--frobnicate")
    assert (code, out) == (2, "")
    assert "No such option" in err


@pytest.mark.usefixtures("interruptible")
def test_control_c_in_training_ends_it_and_the_same_command_goes_on(tiny_recipe: Path, tmp_path: Path) -> None:
    """A real process and a real signal."""
    runs = tmp_path / "runs"
    assert ask("data", tiny_recipe, "--runs", runs).code == 0
    long = ("--set", "train.epochs=50")  # so that it does not end before the signal comes
    with Apart(tmp_path / "said", "train", tiny_recipe, "--runs", runs, "--json", *long) as command:
        deadline = time.monotonic() + 120
        while not list(runs.glob("tiny/*/train.partial/checkpoints/checkpoint-*/trainer_state.json")):
            assert command.runs
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(command.pid, signal.SIGINT)
        assert command.code(60) == 130
        out, err = command.out, command.err
    assert parsed(out) == {"error": "interrupted; the same command resumes from here", "exit_code": 130}
    assert "Traceback" not in err
    (run,) = (runs / "tiny").iterdir()
    assert {path.name for path in run.iterdir()} == {".lock", "data", "train.partial"}
    assert {path.name for path in (run / "train.partial").iterdir()} == {"checkpoints", "key"}
    done = ask("train", tiny_recipe, "--runs", runs, "--json", *long)
    assert done.code == 0
    assert done.json["summary"]["resumed_at_step"] >= 20
