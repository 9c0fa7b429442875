"""Calls a function in a process of its own, whose memory is nobody else's."""

import contextlib
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from bentune.bundle.errors import BentuneError

_Found = TypeVar("_Found")


class OutOfMemory(BentuneError):
    """There was not enough memory for what the process did."""


def in_own_process(function: Callable[..., _Found], *arguments: Any) -> _Found:
    """What the function gives for these arguments, all of which can be pickled; it ends with this process.

    Raises what the function raised if that is of Bentune, BentuneError for anything else, and OutOfMemory when the
    kernel ended it.
    """
    context = multiprocessing.get_context("spawn")  # a fork would begin with all the memory that this process has
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, arguments), daemon=True)
    process.start()
    sender.close()
    try:
        found, error = receiver.recv()
    except EOFError:
        process.join()
        if process.exitcode == -signal.SIGKILL:
            raise OutOfMemory("the kernel ended the process") from None
        raise BentuneError(f"the process ended by itself (exit code {process.exitcode})") from None
    finally:
        process.kill()
        process.join()
    if error is not None:
        raise error
    result: _Found = found
    return result


def peak_bytes() -> int:
    """The most memory that this process held so far, resident, in bytes."""
    with contextlib.suppress(OSError):
        # Unlike ru_maxrss it does not begin with what the process that started this one had.
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _answer(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.dup2(2, 1)  # what libraries print is for people, and never between the lines of --json
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one is told, and ends it
    with contextlib.suppress(OSError):
        # Where memory runs out, this one is ended and not its parent.
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="utf-8")
    answer: tuple[Any, BentuneError | None]
    try:
        answer = function(*arguments), None
    except BentuneError as error:
        answer = None, error
    except Exception as error:
        answer = None, BentuneError(f"{type(error).__name__}: {error}")
    sender.send(answer)
