"""Peak memory of a command's process, independent of the process that starts it."""

import json
import os
import subprocess
import sys
from typing import NamedTuple

from bentune.bundle.errors import BentuneError

# Linux keeps the peak of a process across exec, so a child of this process would inherit its peak. A fresh interpreter
# starts the command instead.
WATCHER = """
import json, os, resource, subprocess, sys
code = subprocess.run(sys.argv[2:], stdout=int(sys.argv[1])).returncode
print(json.dumps([code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024]))
"""


class Peak(NamedTuple):
    """Result of a command: `peak_mb` is its peak resident memory in 10^6 bytes, `output` its stdout."""

    peak_mb: float
    output: bytes


def peak_of(command: list[str]) -> Peak:
    """Run the command with this process's module path.

    Raises BentuneError when it fails.
    """
    read, write = os.pipe()
    with os.fdopen(read, "rb") as given:
        try:
            watcher = subprocess.Popen(
                [sys.executable, "-c", WATCHER, str(write), *command],
                stdout=subprocess.PIPE,
                pass_fds=(write,),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        finally:
            os.close(write)
        output = given.read()
        said, _ = watcher.communicate()
    code, peak = json.loads(said)
    if code != 0:
        raise BentuneError(f"`{' '.join(command)}` ended with {code}; its output is above")
    return Peak(peak / 1e6, output)
