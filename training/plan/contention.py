"""How much of the cores other programs took while something was measured: what was found may be wrong."""

import os
import time
from dataclasses import dataclass

import psutil

MOST_TAKEN = 0.1
"""The share of the cores that others may have kept busy before what was measured is called doubtful."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """Seconds since some moment in the past: by the wall, of busy cores of the whole machine, and of this process."""

    wall: float
    machine: float
    process: float

    @classmethod
    def read(cls) -> "Clocks":
        """What they show now."""
        machine, own = psutil.cpu_times(), time.process_time()
        idle = machine.idle + getattr(machine, "iowait", 0.0)
        return cls(time.monotonic(), sum(machine) - idle, own)


def taken(before: Clocks, after: Clocks, cores: int, machine_cores: int | None = None) -> float:
    """The share of our `cores`, 0 to 1, that others kept busy between two readings.

    What others do on cores that we may not use is not counted as long as there are enough of those.
    """
    wall = after.wall - before.wall
    if wall <= 0:
        return 0.0
    others = (after.machine - before.machine - (after.process - before.process)) / wall
    spare = (machine_cores or os.cpu_count() or cores) - cores
    return min(max((others - spare) / cores, 0.0), 1.0)
