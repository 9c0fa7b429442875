"""Fixtures that tests of the command line share."""

import signal
from collections.abc import Callable, Iterator

import pytest

from bentune.cli import main


@pytest.fixture
def bentune(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process; gives its exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["bentune", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        printed = capsys.readouterr()
        return int(exit_.value.code or 0), printed.out, printed.err

    return call


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Set Python's default handler of SIGINT, and put the old one back.

    Processes that a shell started in the background ignore SIGINT. So do all that they start, unless told otherwise.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
