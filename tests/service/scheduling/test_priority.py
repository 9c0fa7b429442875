"""Settings that give the slots precedence. They change a whole process, so the tests start one of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
import os, sys, threading
from service.scheduling.priority import favour_slots
{before}
favour_slots()
seen = []
thread = threading.Thread(target=lambda: seen.append(os.sched_getscheduler(0)))
thread.start()
thread.join()
print(sys.getswitchinterval(), os.sched_getscheduler(0) == os.SCHED_BATCH, seen == [os.SCHED_BATCH])
"""
FORBIDDEN = """
def forbidden(*_):
    raise PermissionError
os.sched_setscheduler = forbidden
"""


def printed(before: str) -> str:
    program = PROGRAM.format(before=before)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="the policies are Linux's")
def test_threads_do_not_drive_each_other_off_their_cores() -> None:
    assert printed("") == "0.0005 True True"


def test_where_it_is_forbidden_it_is_left() -> None:
    assert printed(FORBIDDEN).startswith("0.0005 False")
