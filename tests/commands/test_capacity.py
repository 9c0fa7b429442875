"""`bentune capacity` from the shell: the files are there and agree, and what makes no sense is refused at once."""

import sys
from pathlib import Path

import pytest
import yaml
from command import ask
from measured import capacity

from bentune.bundle.files import write_json
from rollout.capacity.sizing import CapacityPlan


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    path = tmp_path / "capacity.json"
    write_json(path, capacity())
    return path


def test_the_files_and_the_answer_agree(measured: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    answer = ask(
        "capacity", measured, "--slo", "p99=200ms", "--peak", 500, "--traffic", "ramp", "--startup", 20,
        "--memory", "1Gi", "--out", out, "--json",
    )  # fmt: skip
    assert (answer.code, answer.err) == (0, "")
    plan = CapacityPlan.model_validate(answer.json)
    assert plan == CapacityPlan.model_validate_json((out / "capacity-plan.json").read_bytes())
    assert plan.sizing.startup_s == 20
    assert plan.traffic.name == "ramp"
    assert plan.simulated.held
    scaler = yaml.safe_load((out / "capacity-hpa.yaml").read_text())["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (
        plan.sizing.scaling.min_replicas,
        plan.sizing.scaling.max_replicas,
    )
    pods = yaml.safe_load((out / "capacity-deployment.yaml").read_text())["spec"]["template"]["spec"]
    assert pods["containers"][0]["resources"]["limits"] == {"cpu": "2", "memory": "1Gi"}
    assert (out / "scaling.png").stat().st_size > 10_000
    assert len(list(out.iterdir())) == 4


def test_without_out_there_is_no_chart_and_no_need_of_matplotlib(
    measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    monkeypatch.chdir(tmp_path)
    answer = ask("capacity", measured, "--slo", "p99=200ms", "--peak", "10000")
    assert answer.code == 0, answer.err
    assert "the start-up time was not measured: 30 s are assumed" in answer.err
    assert "pods at the peak" in answer.err
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "capacity-deployment.yaml", "capacity-hpa.yaml", "capacity-plan.json", "capacity.json",
    ]  # fmt: skip
    answer = ask("capacity", measured, "--slo", "p99=200ms", "--peak", "1", "--out", tmp_path / "out")
    assert answer.code == 2
    assert "pip install 'bentune[bench]'" in answer.err
    assert not (tmp_path / "out").exists()


def test_a_curve_of_ones_own_beyond_the_peak(measured: Path, tmp_path: Path) -> None:
    (tmp_path / "monday.csv").write_text("seconds,rate\n0,100\n600,100\n601,800\n1200,800\n")
    answer = ask(
        "capacity", measured, "--slo", "p99=200ms", "--peak", 300, "--traffic", tmp_path / "monday.csv",
        "--out", tmp_path / "out", "--min", 2, "--startup", 20,
    )  # fmt: skip
    assert answer.code == 1, "a plan that misses its own objective must not be applied by what comes next in a script"
    assert "above --peak 300" in answer.err
    assert "the simulated traffic does not hold p99=200ms" in answer.err
    assert "--min" in answer.err
    assert not CapacityPlan.model_validate_json((tmp_path / "out/capacity-plan.json").read_bytes()).simulated.held


def test_the_patch_of_the_other_autoscaler(measured: Path, tmp_path: Path) -> None:
    answer = ask(
        "capacity", measured, "--slo", "p99=200ms", "--peak", 500, "--autoscaler", "keda", "--out", tmp_path / "out",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert yaml.safe_load((tmp_path / "out/capacity-keda.yaml").read_text())["kind"] == "ScaledObject"
    assert not (tmp_path / "out/capacity-hpa.yaml").exists()


def test_start_up_and_memory_are_those_measured(tmp_path: Path) -> None:
    path = tmp_path / "capacity.json"
    write_json(path, capacity().model_copy(update={"startup_s": 4.04, "memory_bytes": 400_000_000}))
    command = ("capacity", path, "--slo", "p99=200ms", "--peak", 500, "--out", tmp_path / "out", "--json")
    sizing = CapacityPlan.model_validate(ask(*command).json).sizing
    # 400 MB, 67 MB for waiting inputs and 6 for their tokens, a fifth more, in steps of 64 MiB.
    assert (sizing.startup_s, sizing.resources.memory) == (4.0, "576Mi")
    answer = ask(*command, "--startup", 20, "--memory", "2Gi")
    sizing = CapacityPlan.model_validate(answer.json).sizing
    assert (sizing.startup_s, sizing.resources.memory) == (20, "2Gi")


def test_the_traffic_is_played_on_real_servers(measured: Path, tiny_tag: str, tmp_path: Path) -> None:
    (tmp_path / "short.csv").write_text("seconds,rate\n0,20\n2,40\n4,20\n")
    answer = ask(
        "capacity", measured, "--slo", "p99=200ms", "--peak", 40, "--cpu", 1, "--traffic", tmp_path / "short.csv",
        "--play", tiny_tag, "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    plan = CapacityPlan.model_validate_json((tmp_path / "out/capacity-plan.json").read_bytes())
    assert plan.played is not None
    observed, simulated = plan.played.observed, plan.played.simulated
    assert observed.arrivals == observed.served + observed.refused
    assert observed.arrivals == pytest.approx(120, abs=50)
    assert simulated.arrivals == pytest.approx(120)
    assert (observed.fewest_replicas, observed.most_replicas) == (2, 2)
    assert observed.replica_hours == pytest.approx(2 * 4 / 3600)
    assert simulated.replica_hours == pytest.approx(2 * 4 / 3600)
    assert observed.startup_s > 0.5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--play", "nowhere"], "nowhere is not in the BentoML store"),
        (["--traffic", "daily"], "--play takes as long as the traffic: daily is 24.0 h"),
        (["--cpu", "1000"], "up to 2 servers of 1000 cores"),
    ],
)
def test_what_cannot_be_played_is_refused(
    arguments: list[str], words: str, measured: Path, tiny_tag: str, tmp_path: Path
) -> None:
    (tmp_path / "short.csv").write_text("seconds,rate\n0,20\n4,20\n")
    answer = ask(
        "capacity", measured, "--slo", "p99=200ms", "--peak", 40, "--traffic", tmp_path / "short.csv",
        "--play", tiny_tag, *arguments,
    )  # fmt: skip
    assert answer.code == 2, answer.err
    assert words in " ".join(answer.err.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--slo", "p99=100ms"], "--slo p99=100ms is stricter than p99=200ms"),
        (["--slo", "p95=1s"], "the objective 'p95=1s' is not one"),
        (["--peak", "0"], "0.0 is not in the range"),
        (["--peak", "nan"], "--peak is no number"),
        (["--headroom", "0.99"], "--headroom 0.99 is not above 0 and at most 0.91"),
        (["--headroom", "nan"], "--headroom is no number"),
        (["--traffic", "flat"], "flat: cannot be read"),
        (["--memory", "much"], "--memory much: is no amount of memory"),
        (["--min", "0"], "0 is not in the range"),
        (["--startup", "nan"], "--startup is no number"),
    ],
)
def test_what_makes_no_sense_is_refused(
    arguments: list[str], words: str, measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = ask("capacity", measured, *("--slo", "p99=200ms", "--peak", "500"), *arguments)
    assert answer.code == 2
    assert words in answer.err
    assert [path.name for path in tmp_path.iterdir()] == ["capacity.json"]


def test_a_file_that_is_none(tmp_path: Path) -> None:
    answer = ask("capacity", tmp_path / "none.json", "--slo", "p99=200ms", "--peak", "500")
    assert answer.code == 2
    assert "`bentune bench --find-knee` writes it" in answer.err


def test_a_place_that_cannot_be_written(measured: Path) -> None:
    answer = ask("capacity", measured, "--slo", "p99=200ms", "--peak", "500", "--out", measured / "below")
    assert answer.code == 2
    assert "cannot be made" in answer.err
