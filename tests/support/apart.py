"""Commands in processes of their own, forked from one that has imported everything: they start at once."""

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

IMPORTED = (
    "bentune.cli",
    "training.pipeline.pipeline",
    "training.pipeline.follow",
    "training.data.stage",
    "training.train.stage",
    "training.prove.evaluate",
    "training.prove.export",
    "training.prove.verify",
    "training.plan.stage",
    "training.package",
    "training.search.search",
)


class Apart:
    """A command of `bentune` in a process of its own; `prepare` is called there first.

    Its outputs are the files `out` and `err` below `place`.
    """

    def __init__(
        self,
        place: Path,
        *arguments: object,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        place.mkdir(parents=True, exist_ok=True)
        self._place = place
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(IMPORTED))
        given = ([*map(str, arguments)], cwd or Path.cwd(), dict(os.environ) | dict(environment or {}), prepare)
        self._process = context.Process(target=_run, args=(place, *given))
        self._process.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process.is_alive()

    def code(self, timeout: float = 180) -> int | None:
        """Return the exit code, or None if it has not ended within `timeout` seconds."""
        self._process.join(timeout)
        return self._process.exitcode

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._process.kill()
        self._process.join()

    @property
    def out(self) -> str:
        return (self._place / "out").read_text()

    @property
    def err(self) -> str:
        return (self._place / "err").read_text()

    @property
    def json(self) -> Any:
        """Parse the one object on stdout; fail when there is anything else."""
        return json.loads(self.out)


def _run(
    place: Path,
    arguments: list[str],
    cwd: Path,
    environment: dict[str, str],
    prepare: Callable[[], None] | None,
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored below a shell's background job
    sys.argv = ["bentune", *arguments]
    if prepare is not None:
        prepare()
    from bentune.cli import main

    main()
