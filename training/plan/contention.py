"""Contention: the share of the cores that other programs used during a measurement."""

import os
import time
from dataclasses import dataclass

import psutil

MAX_CONTENTION = 0.1
"""Share of the cores used by other programs above which a measurement is doubtful."""


@dataclass(frozen=True, slots=True)
class CpuClocks:
    """Readings in seconds: wall time, busy time of all cores, CPU time of this process."""

    wall: float
    machine: float
    process: float

    @classmethod
    def read(cls) -> "CpuClocks":
        """Read the clocks."""
        machine, own = psutil.cpu_times(), time.process_time()
        idle = machine.idle + getattr(machine, "iowait", 0.0)
        return cls(time.monotonic(), sum(machine) - idle, own)


def contention(before: CpuClocks, after: CpuClocks, cores: int, machine_cores: int | None = None) -> float:
    """Return the share, 0 to 1, of our `cores` that other programs kept busy.

    It is for the time between two readings, and assumes that other programs use the machine's remaining cores first.
    """
    wall = after.wall - before.wall
    if wall <= 0:
        return 0.0
    others = (after.machine - before.machine - (after.process - before.process)) / wall
    spare = (machine_cores or os.cpu_count() or cores) - cores
    return min(max((others - spare) / cores, 0.0), 1.0)
