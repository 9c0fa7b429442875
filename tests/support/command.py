"""Runs the command line in this process as a shell would see it: arguments in, exit code and both outputs out."""

import contextlib
import io
import json
import sys
from typing import Any, NamedTuple
from unittest import mock


class Answer(NamedTuple):
    """Exit code and outputs of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on stdout; fails when there is anything else."""
        return json.loads(self.out)


def ask(*arguments: object) -> Answer:
    from bentune.cli import main

    out, err, code = io.StringIO(), io.StringIO(), 0
    given = mock.patch.object(sys, "argv", ["bentune", *map(str, arguments)])
    with given, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return Answer(code, out.getvalue(), err.getvalue())
