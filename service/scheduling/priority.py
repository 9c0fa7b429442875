"""Thread priorities under which the event loop does not preempt the slots."""

import contextlib
import os
import sys

SWITCH_INTERVAL_S = 0.0005
"""Longest wait of a slot for the interpreter lock when ONNX Runtime returns; Python's default is 5 ms."""


def favour_slots() -> None:
    """Set SCHED_BATCH for this thread, and a short switch interval.

    Call it on the event loop's thread, before the slots start. On Linux a waking thread of SCHED_BATCH does not preempt
    another (sched(7)). The event loop then handles all that has arrived when it gets a core; on an idle core that is at
    once. The slots' threads inherit the policy, so they do not preempt the event loop either.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a sandbox may forbid it; serving is then only slower
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
