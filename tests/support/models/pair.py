"""Two processes of one training."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from apart import Apart

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

    Their outputs are in `out` and `err`; where weights are sharded, what each held at the end is in `shares`.
    """

    def __init__(
        self, place: Path, *arguments: object, environment: Mapping[str, str] | None = None, fails: int | None = None
    ) -> None:
        self._place = place
        shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        shared |= {"MASTER_PORT": str(free_port()), **(environment or {})}
        self.ranks = [
            Apart(
                place / str(rank),
                *arguments,
                environment=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                prepare=partial(_prepare, place / str(rank) / SHARES, rank == fails),
            )
            for rank in range(2)
        ]

    def codes(self) -> list[int | None]:
        """Return both exit codes when both have ended; None for a rank that hangs."""
        return [rank.code() for rank in self.ranks]

    def kill(self) -> None:
        for rank in self.ranks:
            rank.kill()

    def out(self, rank: int) -> str:
        return self.ranks[rank].out

    def err(self, rank: int) -> str:
        return self.ranks[rank].err

    def summary(self) -> dict[str, Any]:
        """Return the summary of the stage that rank 0 printed."""
        summary: dict[str, Any] = self.ranks[0].json["summary"]
        return summary

    def shares(self, rank: int) -> tuple[int, int]:
        """Return the number of weights that a rank held at the end, and that of the model."""
        held, all_of_them = json.loads((self._place / str(rank) / SHARES).read_text())
        return held, all_of_them


def _prepare(shares: Path, fails: bool) -> None:
    _note_shares(shares)
    if fails:
        _fail()


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
