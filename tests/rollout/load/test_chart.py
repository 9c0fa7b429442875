"""Charts are PNGs; a missing matplotlib or a directory that cannot be made is reported first."""

import sys
from pathlib import Path

import numpy as np
import pytest

from bentune.bundle.errors import InputError
from rollout.load.chart import draw_latency, require_directory, require_matplotlib
from rollout.load.generator import Load


def load(requests: int) -> Load:
    return Load(
        started_s=np.zeros(requests),
        latency_s=np.random.default_rng(0).exponential(size=requests),
        status=np.full(requests, 200),
        inputs=np.ones(requests, np.int64),
        group=np.array([""] * requests),
        retry_after_s=np.full(requests, np.nan),
        lag_s=np.zeros(requests),
        seconds=1.0,
        answered=requests,
        answered_inputs=requests,
        cpu_s=0.0,
    )


@pytest.mark.parametrize("requests", [1, 5000])
def test_a_curve_for_each_server(requests: int, tmp_path: Path) -> None:
    draw_latency(tmp_path / "bench.png", {"one": load(requests), "two": load(2 * requests)}, "latency")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["bench.png"]


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(InputError, match=r"pip install 'bentune\[bench\]'"):
        require_matplotlib()


def test_it_is_made_and_may_be_there(tmp_path: Path) -> None:
    for _ in range(2):
        require_directory(tmp_path / "a/b")
    assert (tmp_path / "a/b").is_dir()


def test_where_a_file_is_none_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"--out .*/file: cannot be made \(File exists\); give another directory"):
        require_directory(tmp_path / "file")
