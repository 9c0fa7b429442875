"""Queue of the scheduler: waiting entries by arrival and by length, and the choice of the next batch."""

import math
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.scheduling.batch import BatchShape

_EntryT = TypeVar("_EntryT", bound=Hashable)


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Bounds of the queue: items, and tokens in all. Items that a slot computes do not count."""

    max_items: int
    max_tokens: int

    def __post_init__(self) -> None:
        if self.max_items < 1 or self.max_tokens < 1:
            raise ValueError(f"max_items and max_tokens must be at least 1: {self}")

    def admit(self, items: int, tokens: int) -> bool:
        """Return whether `items` items with `tokens` tokens in all may wait together."""
        return items <= self.max_items and tokens <= self.max_tokens


class WaitingRoom(Generic[_EntryT]):
    """Waiting entries, by arrival and by length. The scheduler handles time and asyncio.

    Adding or removing an entry costs a search among the distinct waiting lengths, whatever the number of entries.
    """

    def __init__(self) -> None:
        self.tokens = 0
        # Not plain dicts: to find its first key, a dict walks over all those deleted before it.
        self._arrivals: OrderedDict[_EntryT, int] = OrderedDict()
        self._by_length: dict[int, OrderedDict[_EntryT, None]] = {}
        self._lengths: list[int] = []

    def __len__(self) -> int:
        return len(self._arrivals)

    def __iter__(self) -> Iterator[_EntryT]:
        """Iterate over the entries, the oldest first."""
        return iter(self._arrivals)

    def add(self, entry: _EntryT, tokens: int) -> None:
        """Add `entry` as the youngest.

        Its length is `tokens`, at least 1. It must not be waiting already.
        """
        self._arrivals[entry] = tokens
        self.tokens += tokens
        if tokens not in self._by_length:
            self._by_length[tokens] = OrderedDict()
            insort(self._lengths, tokens)
        self._by_length[tokens][entry] = None

    def discard(self, entry: _EntryT) -> None:
        """Remove `entry` if it waits."""
        tokens = self._arrivals.pop(entry, None)
        if tokens is None:
            return
        self.tokens -= tokens
        del self._by_length[tokens][entry]
        if not self._by_length[tokens]:
            del self._by_length[tokens]
            del self._lengths[bisect_left(self._lengths, tokens)]

    def take(self, shape: BatchShape, slots: int = 1) -> list[_EntryT]:
        """Remove and return the next batch.

        It has the oldest entry and the entries nearest to it in length, as far as `shape` allows. Of equal lengths the
        older goes first, of equally near lengths the shorter. With several idle `slots` the batch stops at its share of
        the waiting tokens, so that the other slots get work too. The room must not be empty.
        """
        oldest, anchor = next(iter(self._arrivals.items()))
        share = math.ceil(self.tokens / slots)
        batch, tokens, longest = [oldest], anchor, anchor
        self.discard(oldest)
        while True:
            # Both sides are tried each time: an entry too short for the padding bound may fit once longer ones have
            # joined. One entry per side is enough: if the nearest does not fit `shape`, none behind it does.
            for length in self._nearest(anchor):
                if tokens + length <= share and shape.fits(len(batch) + 1, tokens + length, max(longest, length)):
                    break
            else:
                return batch
            entry = next(iter(self._by_length[length]))
            self.discard(entry)
            batch.append(entry)
            tokens += length
            longest = max(longest, length)

    def _nearest(self, anchor: int) -> list[int]:
        """Return the waiting lengths next to `anchor`, nearest first.

        At most one is below `anchor`, and at most one is not.
        """
        place = bisect_left(self._lengths, anchor)
        return sorted(self._lengths[max(place - 1, 0) : place + 1], key=lambda length: abs(length - anchor))


class Ahead(Generic[_EntryT]):
    """Batches formed ahead for busy slots. Their entries count as waiting until a slot is free."""

    def __init__(self) -> None:
        self.tokens = 0
        self._batches: dict[Hashable, list[tuple[_EntryT, int]]] = {}
        self._lengths: dict[_EntryT, int] = {}

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._lengths)

    def add(self, batch: Hashable, entries: list[tuple[_EntryT, int]]) -> None:
        """Add the entries of `batch` behind the earlier batches.

        Each entry comes with its length in tokens.
        """
        self._batches[batch] = entries
        self._lengths.update(entries)
        self.tokens += sum(tokens for _, tokens in entries)

    def slot_freed_by(self, batch: Hashable) -> None:
        """Give the slot of the finished `batch` to the oldest waiting batch.

        If `batch` itself is still waiting, only it is removed.
        """
        if self._batches:
            for entry, _ in self._batches.pop(batch if batch in self._batches else next(iter(self._batches))):
                self.discard(entry)

    def discard(self, entry: _EntryT) -> None:
        """Remove `entry` if it waits."""
        self.tokens -= self._lengths.pop(entry, 0)
