"""The peak is of the process that was asked for, and not of those before it or of the one that asks."""

import sys

import pytest

from benchmarks.process.peak import peak_of
from bentune.bundle.errors import BentuneError


def test_the_peak_is_of_that_process_alone() -> None:
    held = b"x" * 300_000_000  # by the process that asks
    large, _ = peak_of([sys.executable, "-c", "b'x' * 250_000_000"])
    small, output = peak_of([sys.executable, "-c", "print('said')"])
    assert large > 250 > small
    assert output == b"said\n"
    assert len(held) == 300_000_000


def test_a_command_that_fails_is_named() -> None:
    with pytest.raises(BentuneError, match=r"raise SystemExit\(3\)` ended with 3"):
        peak_of([sys.executable, "-c", "raise SystemExit(3)"])
