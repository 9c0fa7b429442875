"""Call of a function in a subprocess, whose memory can be measured."""

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
    """Lack of memory in the subprocess."""


def call_in_subprocess(function: Callable[..., _Found], *arguments: Any) -> _Found:
    """Call a function in a subprocess and return its result.

    The arguments and the result must be picklable. The subprocess ends with this process. Raises the function's own
    BentuneError, BentuneError for any other error, and OutOfMemory when the kernel killed the subprocess.
    """
    context = multiprocessing.get_context("spawn")  # a fork starts with the memory of this process
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, arguments), daemon=True)
    process.start()
    sender.close()
    try:
        found, error = receiver.recv()
    except EOFError:
        process.join()
        if process.exitcode == -signal.SIGKILL:
            raise OutOfMemory("the kernel killed the process") from None
        raise BentuneError(f"the process ended without a result (exit code {process.exitcode})") from None
    finally:
        process.kill()
        process.join()
    if error is not None:
        raise error
    result: _Found = found
    return result


def peak_bytes() -> int:
    """Return this process's peak resident memory in bytes."""
    with contextlib.suppress(OSError):
        # Unlike ru_maxrss, VmHWM does not start at the parent's value.
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _answer(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.dup2(2, 1)  # libraries must not print into the output of --json
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles it, and ends this process
    with contextlib.suppress(OSError):
        # When memory runs out, the kernel must kill this process and not its parent.
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="utf-8")
    answer: tuple[Any, BentuneError | None]
    try:
        answer = function(*arguments), None
    except BentuneError as error:
        answer = None, error
    except Exception as error:
        answer = None, BentuneError(f"{type(error).__name__}: {error}")
    sender.send(answer)
