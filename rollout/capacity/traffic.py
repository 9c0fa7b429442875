"""Traffic curve in requests a second, built in or from a CSV file."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bentune.bundle.arrays import Floats
from bentune.bundle.errors import InputError

MINUTE, HOUR = 60.0, 3600.0
QUIET = 0.2
"""Share of the peak in the quiet hours of the built-in curves."""
MAX_SECONDS = 1_000_000.0
COLUMNS = ("seconds", "rate")


@dataclass(frozen=True)
class Traffic:
    """Requests a second at points in time, in seconds from 0, linear in between.

    Two points at one time are a jump.
    """

    name: str
    seconds: Floats
    rates: Floats

    @property
    def duration_s(self) -> float:
        """Return the duration in seconds."""
        return float(self.seconds[-1])

    @property
    def highest(self) -> float:
        """Return the highest rate, in requests a second."""
        return float(self.rates.max())

    @property
    def lowest(self) -> float:
        """Return the lowest rate, in requests a second."""
        return float(self.rates.min())

    def at(self, seconds: Floats) -> Floats:
        """Return the rates at these times.

        At the time of a jump it is the rate after it. Beyond the ends the rate is constant.
        """
        return np.interp(seconds, self.seconds, self.rates)

    def steps(self, step_s: float) -> Floats:
        """Return the mean rate of each step of `step_s` seconds; a remainder is a step."""
        starts = np.arange(0.0, self.duration_s, step_s)
        return self.at(starts + step_s / 2)


def _step(peak: float) -> list[tuple[float, float]]:
    return [
        (0, QUIET * peak),
        (5 * MINUTE, QUIET * peak),
        (5 * MINUTE, peak),
        (20 * MINUTE, peak),
        (20 * MINUTE, QUIET * peak),
        (35 * MINUTE, QUIET * peak),
    ]


def _ramp(peak: float) -> list[tuple[float, float]]:
    return [
        (0, QUIET * peak),
        (5 * MINUTE, QUIET * peak),
        (20 * MINUTE, peak),
        (35 * MINUTE, peak),
        (50 * MINUTE, QUIET * peak),
        (65 * MINUTE, QUIET * peak),
    ]


def _spike(peak: float) -> list[tuple[float, float]]:
    return [
        (0, QUIET * peak),
        (5 * MINUTE, QUIET * peak),
        (5 * MINUTE + 10, peak),
        (7 * MINUTE, peak),
        (7 * MINUTE + 10, QUIET * peak),
        (20 * MINUTE, QUIET * peak),
    ]


def _daily(peak: float) -> list[tuple[float, float]]:
    """Return a day's curve: quietest at its ends, with the peak in the middle."""
    times = np.linspace(0, 24 * HOUR, 24 * 12 + 1)
    shares = QUIET + (1 - QUIET) * (1 - np.cos(2 * np.pi * times / times[-1])) / 2
    return list(zip(times.tolist(), (shares * peak).tolist(), strict=True))


BUILT_IN = {"step": _step, "ramp": _ramp, "spike": _spike, "daily": _daily}


def built_in(name: str, peak: float) -> Traffic:
    """Return the built-in curve `name`, scaled to `peak` requests a second.

    Raises InputError for another name.
    """
    if name not in BUILT_IN:
        raise InputError(f"the traffic {name!r} is none of {', '.join(BUILT_IN)}; or give a CSV file")
    return _traffic(name, BUILT_IN[name](peak))


def read_traffic(path: Path) -> Traffic:
    """Read a CSV file with the columns `seconds` and `rate`, earliest row first.

    The rate is in requests a second. The time of the first row becomes 0. Raises InputError that names the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if missing := [column for column in COLUMNS if column not in (reader.fieldnames or ())]:
                raise InputError(f"{path}: there is no column {missing[0]!r}; the columns must be seconds,rate")
            points = [
                (_number(row, "seconds", path, reader.line_num), _number(row, "rate", path, reader.line_num))
                for row in reader
            ]
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); give a CSV file, or one of {', '.join(BUILT_IN)}"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is no CSV file in UTF-8 ({error})") from None
    return _traffic(path.stem, points, path)


def _number(row: dict[str, str | None], column: str, path: Path, line: int) -> float:
    text = row[column]
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise InputError(f"{path}, line {line}: {column} is {text!r}; write a number, 0 or above")
    return number


def _traffic(name: str, points: list[tuple[float, float]], path: Path | None = None) -> Traffic:
    seconds, rates = np.array(points, np.float64).reshape(-1, 2).T
    where = path or name
    if len(seconds) < 2 or seconds[-1] <= seconds[0]:
        raise InputError(f"{where}: a curve needs rows at two different times at least")
    if (np.diff(seconds) < 0).any():
        later = int(np.argmax(np.diff(seconds) < 0))
        raise InputError(
            f"{where}: second {seconds[later + 1]:g} comes after {seconds[later]:g}; put the earliest first"
        )
    if seconds[-1] - seconds[0] > MAX_SECONDS:
        raise InputError(f"{where}: is {seconds[-1] - seconds[0]:g} s long; give at most {MAX_SECONDS:g}")
    if rates.max() <= 0:
        raise InputError(f"{where}: no request ever comes; give a rate above 0")
    return Traffic(name, seconds - seconds[0], rates)
