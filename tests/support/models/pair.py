"""Two processes of one training, forked from one that has imported everything already: a pair starts in a second."""

import json
import multiprocessing
import os
import sys
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

from rollout.server.server import free_port

SHARES = "shares.json"


def launched_with(*options: str) -> dict[str, str]:
    """Return the environment that `accelerate launch` sets with these options.

    The processes that it starts get these variables.
    """
    told = launch_command_parser().parse_args([*options, "--num_processes", "2", "-m", "bentune"])
    told, _, _ = _validate_launch_command(told)
    found: dict[str, str] = prepare_multi_gpu_env(told)
    return {name: value for name, value in found.items() if name.startswith(("ACCELERATE_", "FSDP_"))}


class Pair:
    """The command line as rank 0 and rank 1; `fails` is the rank that runs out of memory in its first step.

    What each says is in `out` and `err`; where weights are sharded, what each held at the end is in `shares`.
    """

    def __init__(
        self, place: Path, *arguments: object, environment: Mapping[str, str] | None = None, fails: int | None = None
    ) -> None:
        self.place = place
        place.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            ["bentune.cli", "training.pipeline.pipeline", "training.train.stage", "training.pipeline.follow"]
        )
        shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        shared |= {"MASTER_PORT": str(free_port()), **os.environ, **(environment or {})}
        self.processes: list[BaseProcess] = []
        for rank in range(2):
            told = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            process = context.Process(target=_run, args=(place, rank, [*map(str, arguments)], told, rank == fails))
            process.start()
            self.processes.append(process)

    def codes(self) -> list[int | None]:
        """Return the exit code of each process, when both have ended.

        The code of a rank that still hangs after 180 seconds is None.
        """
        for process in self.processes:
            process.join(180)
        return [process.exitcode for process in self.processes]

    def kill(self) -> None:
        """SIGKILL for both."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()

    def out(self, rank: int) -> str:
        return (self.place / f"{rank}.out").read_text()

    def err(self, rank: int) -> str:
        return (self.place / f"{rank}.err").read_text()

    def summary(self) -> dict[str, Any]:
        """Return the summary of the stage that rank 0 printed."""
        said: dict[str, Any] = json.loads(self.out(0))
        return said["summary"]

    def shares(self, rank: int) -> tuple[int, int]:
        """Return the number of weights that a rank held at the end, and that of the model."""
        held, all_of_them = json.loads((self.place / f"{rank}.{SHARES}").read_text())
        return held, all_of_them


def _run(place: Path, rank: int, arguments: list[str], environment: dict[str, str], fails: bool) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(place / f"{rank}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.argv = ["bentune", *arguments]
    _note_shares(place / f"{rank}.{SHARES}")
    if fails:
        _fail()
    from bentune.cli import main

    main()


def _note_shares(file: Path) -> None:
    from torch.distributed.tensor import DTensor

    from training.train.fit import fit

    gather = fit.gather

    def noted(model: Any, *, keep: bool) -> None:
        weights = list(model.parameters())
        held = sum((weight.to_local() if isinstance(weight, DTensor) else weight).numel() for weight in weights)
        file.write_text(json.dumps([held, sum(weight.numel() for weight in weights)]))
        gather(model, keep=keep)

    fit.gather = noted


def _fail() -> None:
    from training.train.fit.trainer import RowTrainer

    def compute_loss(*_: Any, **__: Any) -> Any:
        raise MemoryError("cannot allocate 1 GB for a test")

    RowTrainer.compute_loss = compute_loss  # type: ignore[method-assign]
