"""Share of the cores that other programs took during a measurement."""

import multiprocessing
import time

import pytest

from training.plan.contention import CpuClocks, contention

START = CpuClocks(wall=100.0, machine=1000.0, process=50.0)


@pytest.mark.parametrize(
    ("machine", "process", "cores", "machine_cores", "share"),
    [
        (20.0, 20.0, 2, 2, 0.0),  # we alone
        (20.0, 10.0, 2, 2, 0.5),  # half of both cores is somebody else's
        (70.0, 20.0, 2, 8, 0.0),  # five of the six others are busy
        (80.0, 10.0, 2, 8, 0.5),  # seven are: one of ours
        (20.0, 25.0, 2, 2, 0.0),  # clocks of different grain
        (40.0, 0.0, 2, 2, 1.0),
    ],
)
def test_the_share_of_our_cores(machine: float, process: float, cores: int, machine_cores: int, share: float) -> None:
    after = CpuClocks(START.wall + 10, START.machine + machine, START.process + process)
    assert contention(START, after, cores, machine_cores) == pytest.approx(share)


def test_no_time_takes_nothing() -> None:
    assert contention(START, START, 2) == 0.0


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_a_busy_neighbour_is_seen() -> None:
    cores = 1
    before = CpuClocks.read()
    neighbour = multiprocessing.get_context("spawn").Process(target=spin, args=(1.0,))
    neighbour.start()
    neighbour.join()
    after = CpuClocks.read()
    assert contention(before, after, cores, machine_cores=1) > 0.3
