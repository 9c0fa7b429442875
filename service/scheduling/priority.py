"""Lets the slots of a busy process compute undisturbed by its event loop, which would take their cores and caches."""

import contextlib
import os
import sys

SWITCH_INTERVAL_S = 0.0005
"""Longest wait for the interpreter lock of a slot that comes back from ONNX Runtime; Python's own is 5 ms."""


def favour_slots() -> None:
    """Call it on the event loop's thread, before there are slots.

    Under Linux a thread of SCHED_BATCH that wakes up does not drive another off its core (sched(7)): the event loop
    does what has come in meanwhile in one go, when its turn comes. On an idle core that is at once. The threads that
    this one starts inherit it, so slots do not drive the event loop off either.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # where a sandbox forbids it, it is only slower
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
