"""Reads the pages of docs/ and runs their commands."""

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from command import ask
from pydantic import BaseModel

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in a language, but for those that are files."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def files_of(page: Path) -> dict[str, str]:
    """The code blocks with an info string like `yaml file=NAME`, by NAME."""
    found = re.findall(r"^```\w+ file=(\S+)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return dict(found)


def commands_of(page: Path) -> list[str]:
    """The lines of a page's shell blocks, without their comments."""
    lines = [line for block in blocks(page, "sh") for line in block.strip().splitlines()]
    return [line.partition(" #")[0].strip() for line in lines]


def values_of(page: Path) -> dict[str, str]:
    """Return the names and defaults in the page's tables.

    They are the first two cells of each table row that begins with a name in backticks.
    """
    return dict(re.findall(r"^\| `([\w.]+)` \| `?(.*?)`? \|", page.read_text(), re.MULTILINE))


def defaults_of(settings: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """Return a section's keys and their defaults as JSON, empty for required ones."""
    return {
        f"{prefix}{name}": "" if field.is_required() else json.dumps(field.default)
        for name, field in settings.model_fields.items()
    }


def shell(command: str, cwd: Path) -> str:
    """Run a command with the environment's programs; return both outputs."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", command], cwd=cwd, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def run(command: str, cwd: Path) -> str:
    """Run a `bentune` command in this process and return both outputs.

    This process has the libraries loaded already.
    """
    program, *arguments = shlex.split(command, comments=True)
    assert program == "bentune", command
    with contextlib.chdir(cwd):
        answer = ask(*arguments)
    assert answer.code == 0, f"{command}\n{answer.out}\n{answer.err}"
    return answer.out + answer.err
