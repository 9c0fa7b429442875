"""The processes that one training is spread over: who leads, who follows, and what the leader tells the others.

torchrun, `accelerate launch` and Kubeflow start the same command several times and say in the environment which of them
each is. Only the leader opens the run, writes, and reports; the others wait for its word, take part in what is computed
together, and end with its exit code. Its word goes over the store that they find each other by, not over the group that
gradients go over: a stage of hours is no reason to give up, and a leader that is gone is noticed at once.
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

FIND_EACH_OTHER = timedelta(minutes=15)
A_WHILE = timedelta(hours=1)
PARTING = timedelta(seconds=10)
EXIT = "exit"
# gloo has no type of error of its own.
LOST = ("gloo/transport", "Connection closed by peer", "Connection reset by peer")


class Store(Protocol):
    """What is used of torch.distributed's."""

    def set(self, key: str, value: str) -> None:
        """Keep a value for all processes."""

    def get(self, key: str) -> bytes:
        """The value, waiting for it."""

    def wait(self, keys: list[str], timeout: timedelta) -> None:
        """Until all are set; raises DistStoreError when the time is up."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which of the processes this one is: `rank` of `world`, of which `local` are on this machine; 0 leads."""

    rank: int = 0
    world: int = 1
    local: int = 1

    @property
    def leads(self) -> bool:
        """Whether it writes and reports."""
        return self.rank == 0


def place(environment: Mapping[str, str] = os.environ) -> Place:
    """As torchrun and its like say it; alone where they do not."""
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= environment.keys():
        return Place()
    return Place(
        rank=int(environment["RANK"]),
        world=int(environment["WORLD_SIZE"]),
        local=int(environment.get("LOCAL_WORLD_SIZE", "1")),
    )


class Dismissed(SystemExit):
    """The leader has ended, with this exit code, where it was to say something else."""


class LostPeer(BentuneError):
    """A process that trained together with this one is gone."""


class Team:
    """The leader's word to the processes that follow: each hears all of it, in order."""

    def __init__(self, store: Store, here: Place) -> None:
        self.store = store
        self.here = here
        self.numbers = count()

    @property
    def leads(self) -> bool:
        """Whether it is the leader's end."""
        return self.here.leads

    def say(self, word: dict[str, Any]) -> None:
        """As the leader."""
        self.store.set(f"word/{next(self.numbers)}", json.dumps(word))

    def dismiss(self, code: int) -> None:
        """As the leader, last of all: tell the others the exit code, and stay until they have heard it.

        The store that they hear it from may be in this very process.
        """
        from torch.distributed import DistError

        self.say({EXIT: code})
        with contextlib.suppress(DistError):
            self.store.wait([f"left/{rank}" for rank in range(1, self.here.world)], PARTING)

    def hear(self, at_most: timedelta | None = None) -> dict[str, Any]:
        """The leader's next word, as long as it takes; or raises DistStoreError after `at_most`.

        Raises BentuneError when the leader is gone.
        """
        from torch.distributed import DistNetworkError, DistStoreError

        key = f"word/{next(self.numbers)}"
        while True:
            try:
                self.store.wait([key], at_most or A_WHILE)
                word: dict[str, Any] = json.loads(self.store.get(key))
            except DistNetworkError as error:
                raise BentuneError("the process that leads the training is gone; start all of them again") from error
            except DistStoreError:
                if at_most is not None:
                    raise
            else:
                if EXIT in word:
                    self.store.set(f"left/{self.here.rank}", "")
                return word

    def agree(self, value: Any) -> Any:
        """The leader's value, in every process; each calls it as often, and in the same order."""
        if self.leads:
            self.say({"value": value})
            return value
        word = self.hear()
        if EXIT in word:
            raise Dismissed(word[EXIT])
        return word["value"]


class Alone:
    """A process without others: nobody is told anything, and its value is the agreed one."""

    leads = True

    def say(self, word: dict[str, Any]) -> None:
        """To nobody."""

    def dismiss(self, code: int) -> None:
        """Nobody."""

    def agree(self, value: Any) -> Any:
        """The value."""
        return value


@contextlib.contextmanager
def explain_lost_peer() -> Iterator[None]:
    """Turn what gloo and NCCL say of a process that ended in the middle into a word on where to look.

    The one that ended has told why; the others end because of it.
    """
    try:
        yield
    except RuntimeError as error:
        from torch.distributed import DistError

        if isinstance(error, DistError) or any(words in str(error) for words in LOST):
            raise LostPeer("another process of this training has ended, and its own message says why") from error
        raise


@functools.cache
def team() -> Team | Alone:
    """The team that this process is of. The first call waits for the others to be there."""
    here = place()
    if here.world == 1:
        return Alone()
    from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]

    store, _, _ = next(rendezvous("env://", timeout=FIND_EACH_OTHER))
    return Team(PrefixStore("bentune", store), here)
