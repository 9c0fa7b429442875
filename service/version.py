"""Versions of a name: when a bundle was stored and what it holds, in the order in which they were stored."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

STAMP = "%Y%m%d-%H%M%S"
VERSION = re.compile(r"([0-9]{8}-[0-9]{6})-[0-9a-f]{6}")


def stored_at(version: str) -> datetime | None:
    """The second in a version's name; None for a version that Bentune did not name."""
    match = VERSION.fullmatch(version)
    try:
        return datetime.strptime(match[1], STAMP).replace(tzinfo=UTC) if match else None
    except ValueError:  # 20261399-...
        return None


def next_version(existing: Iterable[str], now: datetime, sha256: str) -> tuple[str, datetime]:
    """A version greater than all of `existing`, and its second: now, or the one after the last.

    Of two that are stored within a second, and of those stored after the clock was set back, the later is the greater.
    """
    last = max((at for version in existing if (at := stored_at(version)) is not None), default=None)
    at = now.astimezone(UTC).replace(microsecond=0)
    if last is not None:
        at = max(at, last + timedelta(seconds=1))
    return f"{at:{STAMP}}-{sha256[:6]}", at


def newest(versions: Iterable[str]) -> str | None:
    """The greatest of those that Bentune named; None when there is none."""
    return max((version for version in versions if stored_at(version) is not None), default=None)
