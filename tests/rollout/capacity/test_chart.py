"""The chart of a simulation is a PNG, and a missing matplotlib is said."""

import sys
from pathlib import Path

import pytest
from measured import capacity

from bentune.bundle.errors import InputError
from rollout.capacity.chart import draw_scaling
from rollout.capacity.pod_model import PodModel
from rollout.capacity.simulation import simulate
from rollout.capacity.sizing import habits, size
from rollout.capacity.traffic import built_in
from rollout.load.slo import parse_objective
from service.settings import Settings

P99 = parse_objective("p99=200ms")


@pytest.mark.parametrize("name", ["step", "daily"])
def test_a_chart(name: str, tmp_path: Path) -> None:
    traffic = built_in(name, 500)
    sizing = size(capacity(), P99, traffic, peak=500, settings=Settings(), least=1)
    _, series = simulate(PodModel.of(capacity()), sizing.scaling, traffic, P99, habits(sizing))
    draw_scaling(tmp_path / "scaling.png", series, sizing, "a title")
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["scaling.png"]


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    traffic = built_in("step", 500)
    sizing = size(capacity(), P99, traffic, peak=500, settings=Settings())
    _, series = simulate(PodModel.of(capacity()), sizing.scaling, traffic, P99, habits(sizing))
    with pytest.raises(InputError, match=r"pip install 'bentune\[bench\]'"):
        draw_scaling(tmp_path / "scaling.png", series, sizing, "a title")
    assert list(tmp_path.iterdir()) == []
