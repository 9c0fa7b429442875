"""A function in a process of its own: its answer, its errors, its memory."""

import os
import signal
import sys

import numpy as np
import pytest

from bentune.bundle.errors import BentuneError, InputError
from training.dry_run.process import OutOfMemory, call_in_subprocess, peak_bytes

MB = 1_000_000


def held(megabytes: int) -> tuple[int, int]:
    block = np.ones(megabytes * MB, dtype=np.uint8)
    return os.getpid() + 0 * int(block[-1]), peak_bytes()


def refuse(message: str) -> None:
    raise InputError(message)


def stumble() -> None:
    raise ZeroDivisionError("by zero")


def chat() -> int:
    sys.stdout.write("of Python\n")
    sys.stdout.flush()
    os.write(1, b"of a library\n")
    return 7


def end_by(number: int) -> None:
    os.kill(os.getpid(), number)


def test_memory_is_of_the_function_alone() -> None:
    block = np.ones(300 * MB, dtype=np.uint8)
    small, large = call_in_subprocess(held, 1), call_in_subprocess(held, 400)
    assert small[0] != os.getpid()
    assert small[1] < 300 * MB <= peak_bytes() + int(block[0]) - 1
    assert large[1] > 400 * MB
    assert large[1] - small[1] == pytest.approx(399 * MB, rel=0.1)


def test_its_errors_are_raised_here() -> None:
    with pytest.raises(InputError, match="rows"):
        call_in_subprocess(refuse, "no rows")
    with pytest.raises(BentuneError, match="ZeroDivisionError: by zero"):
        call_in_subprocess(stumble)


def test_what_it_prints_is_not_among_the_answers_of_the_command(capfd: pytest.CaptureFixture[str]) -> None:
    assert call_in_subprocess(chat) == 7
    said = capfd.readouterr()
    assert (said.out, "of Python" in said.err, "of a library" in said.err) == ("", True, True)


def test_the_kernel_ends_who_has_no_memory() -> None:
    with pytest.raises(OutOfMemory):
        call_in_subprocess(end_by, signal.SIGKILL)
    with pytest.raises(BentuneError, match="ended without a result") as ended:
        call_in_subprocess(end_by, signal.SIGTERM)
    assert not isinstance(ended.value, OutOfMemory)
