"""Times to split by: ISO dates, or numbers such as years and seconds."""

import math
import re
from datetime import UTC, date, datetime, time
from typing import Literal

NUMBER = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?")
Kind = Literal["date", "number"]


def moment(value: object) -> tuple[Kind, float]:
    """What kind of time this is, and a number that is larger the later it is: seconds since 1970 for a date.

    A date without a zone is in UTC. Raises ValueError when it is neither an ISO date nor a finite number.
    """
    try:
        match value:
            case bool():
                raise ValueError("a truth value is no time")
            case int() | float():
                number = float(value)
            case str() if NUMBER.fullmatch(value.strip()):
                number = float(value)
            case str():
                return "date", _seconds(datetime.fromisoformat(value.strip()))
            case datetime():
                return "date", _seconds(value)
            case date():
                return "date", _seconds(datetime.combine(value, time()))
            case _:
                raise ValueError(f"{type(value).__name__} is no time")
    except OverflowError as error:
        raise ValueError(str(error)) from error
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return "number", number


def spelled(kind: Kind, number: float) -> str:
    """A moment for people: ISO format in UTC, or the number."""
    return datetime.fromtimestamp(number, UTC).isoformat() if kind == "date" else f"{number:.15g}"


def _seconds(moment: datetime) -> float:
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
