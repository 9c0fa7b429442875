"""The worker processes of one training, and the messages of rank 0 to the other ranks.

torchrun, `accelerate launch` and Kubeflow start the same command several times and set the rank of each process in its
environment. Only rank 0 opens the run, writes, and reports. The other ranks wait for its messages, take part in the
computation, and end with its exit code.
"""

import contextlib
import functools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import Any, Protocol

from bentune.bundle.errors import BentuneError

# Messages use the store of the rendezvous, not the process group of the gradients. So a stage may take hours without a
# timeout, and the end of rank 0 is noticed at once.
RENDEZVOUS_TIMEOUT = timedelta(minutes=15)
POLL = timedelta(hours=1)
EXIT_TIMEOUT = timedelta(seconds=10)
EXIT = "exit"
# gloo raises plain RuntimeErrors.
LOST = ("gloo/transport", "Connection closed by peer", "Connection reset by peer")


class Store(Protocol):
    """The used part of torch.distributed's Store."""

    def set(self, key: str, value: str) -> None:
        """Set a value for all processes."""

    def get(self, key: str) -> bytes:
        """Return the value as soon as it is set."""

    def wait(self, keys: list[str], timeout: timedelta) -> None:
        """Wait until all keys are set. Raises DistStoreError after the timeout."""


@dataclass(frozen=True, slots=True)
class Place:
    """The rank of this process in `world` processes; `local` of them are on this machine."""

    rank: int = 0
    world: int = 1
    local: int = 1

    @property
    def leads(self) -> bool:
        """True for rank 0, which writes and reports."""
        return self.rank == 0


def place(environment: Mapping[str, str] = os.environ) -> Place:
    """Read the place that torchrun and similar launchers set in the environment.

    Without these variables it is the place of a single process.
    """
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= environment.keys():
        return Place()
    return Place(
        rank=int(environment["RANK"]),
        world=int(environment["WORLD_SIZE"]),
        local=int(environment.get("LOCAL_WORLD_SIZE", "1")),
    )


class Rank0Exit(SystemExit):
    """The exit of rank 0, with its exit code, in place of an expected message."""


class LostPeer(BentuneError):
    """The error for a worker that ended in the middle of a training."""


class Team:
    """The messages of rank 0 to the other ranks; each receives all of them, in order."""

    def __init__(self, store: Store, here: Place) -> None:
        self.store = store
        self.here = here
        self.numbers = count()

    @property
    def leads(self) -> bool:
        """True in rank 0."""
        return self.here.leads

    def send(self, message: dict[str, Any]) -> None:
        """Send a message to all other ranks; for rank 0 only."""
        self.store.set(f"word/{next(self.numbers)}", json.dumps(message))

    def send_exit(self, code: int) -> None:
        """Send the exit code as the last message, and wait until it is received.

        This is for rank 0 only. It waits because the store may be in this process.
        """
        from torch.distributed import DistError

        self.send({EXIT: code})
        with contextlib.suppress(DistError):
            self.store.wait([f"left/{rank}" for rank in range(1, self.here.world)], EXIT_TIMEOUT)

    def receive(self, timeout: timedelta | None = None) -> dict[str, Any]:
        """Wait for the next message of rank 0, without a limit if there is no timeout.

        Raises DistStoreError after the timeout, BentuneError when rank 0 has ended.
        """
        from torch.distributed import DistNetworkError, DistStoreError

        key = f"word/{next(self.numbers)}"
        while True:
            try:
                self.store.wait([key], timeout or POLL)
                message: dict[str, Any] = json.loads(self.store.get(key))
            except DistNetworkError as error:
                raise BentuneError("rank 0 of the training has ended; start all processes again") from error
            except DistStoreError:
                if timeout is not None:
                    raise
            else:
                if EXIT in message:
                    self.store.set(f"left/{self.here.rank}", "")
                return message

    def broadcast(self, value: Any) -> Any:
        """Return the value of rank 0 in every rank.

        All ranks call this equally often and in the same order.
        """
        if self.leads:
            self.send({"value": value})
            return value
        message = self.receive()
        if EXIT in message:
            raise Rank0Exit(message[EXIT])
        return message["value"]


class Alone:
    """A single process, which sends nothing and broadcasts to itself."""

    leads = True

    def send(self, message: dict[str, Any]) -> None:
        """Do nothing: there is no other rank."""

    def send_exit(self, code: int) -> None:
        """Do nothing: there is no other rank."""

    def broadcast(self, value: Any) -> Any:
        """Return the value."""
        return value


@contextlib.contextmanager
def explain_lost_peer() -> Iterator[None]:
    """Convert the errors of gloo and NCCL about a lost process to LostPeer."""
    try:
        yield
    except RuntimeError as error:
        from torch.distributed import DistError

        if isinstance(error, DistError) or any(words in str(error) for words in LOST):
            raise LostPeer("another process of this training has ended; its own message has the reason") from error
        raise


@functools.cache
def team() -> Team | Alone:
    """Return the team of this process; the first call waits for all ranks."""
    here = place()
    if here.world == 1:
        return Alone()
    from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]

    store, _, _ = next(rendezvous("env://", timeout=RENDEZVOUS_TIMEOUT))
    return Team(PrefixStore("bentune", store), here)
