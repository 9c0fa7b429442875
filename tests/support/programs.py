"""Programs that tests run: one that is missing skips a test on a user's machine, and fails it where all must run."""

import os
import shutil
from typing import NoReturn

import pytest


def missing(tool: str) -> NoReturn:
    message = f"{tool} is not installed"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def require(*tools: str) -> str:
    """The path of the first; every one is there."""
    paths = [shutil.which(tool) or missing(tool) for tool in tools]
    return paths[0]
