"""`bentune bench` from the shell: the commands of docs/serving/bench.md run, and wrong options are refused at once."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from aiohttp import web
from command import ask
from http_server import OneWorker, serving
from tiny import sentences, write_csv

from rollout.load import bench, knee
from rollout.load.bench import BenchReport
from rollout.load.knee import Capacity

PAGE = Path(__file__).parents[2] / "docs/serving/bench.md"
SHORT = ("--seconds", "0.5", "--warmup", "0.1")


def test_the_pages_commands_run(tiny_tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands run shortened, and with a slower objective.

    Two cores that other tests use promise nothing.
    """
    monkeypatch.setattr(knee, "MIN_STEP_S", 0.4)
    monkeypatch.setattr(knee, "GROWTH", 0.0)
    monkeypatch.setattr(knee, "RESOLUTION", 0.5)
    monkeypatch.setattr(bench, "ROUND_WARMUP_S", 0.1)
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "reviews.csv", sentences(30))
    name = tiny_tag.partition(":")[0]
    (block,) = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    with serving(OneWorker(0.01)) as url, serving(OneWorker(0.02)) as other:
        for old, new in {
            "bbc-news": name,
            "500ms": "20s",
            "http://localhost:3000": url,
            "http://localhost:3001": other,
        }.items():
            block = block.replace(old, new)
        lines = [shlex.split(line, comments=True)[1:] for line in block.strip().splitlines()]
        answers = [ask(*line, *SHORT, "--json") for line in lines]
    assert [answer.code for answer in answers] == [0] * 4, [answer.err for answer in answers]
    closed, opened, compared = (BenchReport.model_validate(answer.json) for answer in answers[:3])
    assert closed.servers[0].server == tiny_tag
    assert closed.pattern.clients == 8
    inside = closed.servers[0].inside
    assert inside is not None
    assert inside.batch_requests is not None
    assert inside.batch_requests >= 1
    assert inside.utilization is not None
    assert 0 < inside.utilization <= 1.1
    assert opened.objective is not None
    assert opened.objective.held
    assert BenchReport.model_validate_json((tmp_path / "bench/bench.json").read_bytes()) == opened
    assert (tmp_path / "bench/bench.png").stat().st_size > 1000
    assert compared.servers[1].inside is None
    assert compared.ratios["requests_per_s"].value is not None
    capacity = Capacity.model_validate_json((tmp_path / "capacity.json").read_bytes())
    assert capacity == Capacity.model_validate(answers[3].json)
    assert capacity.model is not None
    assert capacity.signal is not None
    assert 0 <= capacity.signal.slots_busy <= 1


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "rows.csv", sentences(5))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--clients", "1", "--rate", "1"], "--clients 1 is a closed loop and --rate 1 an open one"),
        (["--find-knee"], "--find-knee needs the objective"),
        (["--find-knee", "--slo", "p99=1s", "--rate", "3"], "--rate 3.0: --find-knee chooses the load"),
        (["--slo", "p95=1s"], "the objective 'p95=1s' is not one"),
        (["--rate", "nan"], "--rate is no number"),
        (["--rate", "0"], "0.0 is not in the range"),
        (["--text-column", "nope"], "there is no column 'nope'"),
        (["--compare", "nowhere"], "nowhere is not in the BentoML store"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], words: str, texts: Path) -> None:
    answer = ask("bench", "http://127.0.0.1:1", "--input", texts, *arguments)
    assert answer.code == 2
    assert words in answer.err


def test_an_address_needs_an_input() -> None:
    answer = ask("bench", "http://127.0.0.1:1")
    assert answer.code == 2
    assert "give --input" in answer.err


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_measured(texts: Path) -> None:
    answer = ask("bench", "http://127.0.0.1:1", "--input", texts, "--out", texts / "below")
    assert answer.code == 2
    assert "cannot be made" in answer.err


def test_no_server_is_exit_3(texts: Path) -> None:
    answer = ask("bench", "http://127.0.0.1:1", "--input", texts, "--json")
    assert answer.code == 3
    assert "is the server up" in answer.json["error"]


def test_a_missed_objective_is_exit_1_and_the_report_is_there_all_the_same(texts: Path, tmp_path: Path) -> None:
    with serving(OneWorker(0.02)) as url:
        answer = ask("bench", url, "--input", texts, "--slo", "p50=1ms", "--out", tmp_path / "out", *SHORT)
    assert answer.code == 1
    assert "over the objective of 1 ms" in answer.err
    report = json.loads((tmp_path / "out/bench.json").read_text())
    assert report["objective"]["held"] is False
    # No output contains any of the texts that were sent.
    words = sentences(1)[0][0]
    assert words not in answer.out + answer.err + json.dumps(report)


@pytest.mark.usefixtures("interruptible")
def test_interrupted_it_leaves_no_half_written_file(texts: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    async def count(request: web.Request) -> web.Response:
        seen.append(1)
        return web.Response()

    out = tmp_path / "out"
    with serving(count) as url:
        command = [sys.executable, "-m", "bentune", "bench", url, "--input", texts, "--out", out, "--clients", "1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            while len(seen) < 50 and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, printed = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "interrupted" in printed
    assert "Traceback" not in printed
    assert list(out.iterdir()) == []
