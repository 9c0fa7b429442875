"""Curves: the built-in ones reach their peak, files are read as they are written, and what makes no sense is named."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentune.bundle.errors import InputError
from rollout.capacity.traffic import BUILT_IN, QUIET, built_in, read_traffic


@pytest.mark.parametrize("name", BUILT_IN)
@given(peak=st.floats(0.1, 1e6))
def test_built_in_curves_go_from_quiet_to_the_peak(name: str, peak: float) -> None:
    traffic = built_in(name, peak)
    assert traffic.seconds[0] == 0
    assert (np.diff(traffic.seconds) >= 0).all()
    assert traffic.highest == pytest.approx(peak)
    assert traffic.lowest == pytest.approx(QUIET * peak)


def test_a_jump_is_two_points_at_one_time() -> None:
    traffic = built_in("step", 100)
    assert traffic.at(np.array([299.9, 300.0, 1199.9, 1200.0])).tolist() == pytest.approx([20, 100, 100, 20])


@given(step_s=st.floats(0.5, 30))
def test_steps_hold_the_mean_rate(step_s: float) -> None:
    """The traffic has 900 s at the peak of 100, and 1,200 s at 20.

    The sum may differ by what a step that holds a jump blurs.
    """
    total = built_in("step", 100).steps(step_s).sum() * step_s
    assert total == pytest.approx(900 * 100 + 1200 * 20, abs=2 * 80 * step_s)


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "monday.csv"
    path.write_text("\ufeffrate,seconds,note\n10,60,\n30,120,lunch\n30.5,180,\n")
    traffic = read_traffic(path)
    assert (traffic.name, traffic.duration_s, traffic.highest) == ("monday", 120, 30.5)
    assert traffic.at(np.array([0.0, 30.0, 60.0])).tolist() == [10, 20, 30]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seconds,requests\n0,1\n", "no column 'rate'"),
        ("seconds,rate\n0,1\n1,many\n", "line 3: rate is 'many'"),
        ("seconds,rate\n0,1\n1\n", "line 3: rate is None"),
        ("seconds,rate\n0,1\n1,-2\n", "line 3: rate is '-2'"),
        ("seconds,rate\n0,1\n1,nan\n", "line 3: rate is 'nan'"),
        ("seconds,rate\n0,1\n", "two different times"),
        ("seconds,rate\n", "two different times"),
        ("seconds,rate\n0,1\n9,1\n5,1\n10,1\n", "second 5 comes after 9"),
        ("seconds,rate\n0,1\n9000000,1\n", "give at most 1e+06"),
        ("seconds,rate\n0,0\n9,0\n", "no request ever comes"),
        ("", "no column 'seconds'"),
    ],
)
def test_a_file_that_is_no_curve(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_traffic(path)
    assert words in str(error.value)
    assert str(path) in str(error.value)


def test_a_name_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'flat' is none of step, ramp, spike, daily"):
        built_in("flat", 1)
    with pytest.raises(InputError, match="cannot be read .*step, ramp, spike, daily"):
        read_traffic(tmp_path / "flat")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="no CSV file in UTF-8"):
        read_traffic(tmp_path / "binary")
