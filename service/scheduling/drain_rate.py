"""Drain rate of the queue, for Retry-After and to refuse requests that would miss their deadline."""

import math

RETRY_AFTER_S = (1.0, 60.0)
"""Shortest and longest Retry-After, in seconds."""

MEMORY_S = 5.0
"""Time constant of the average, in seconds. It is not a number of batches, because a batch may hold a single text."""


class DrainRate:
    """Rate at which the slots compute: an exponentially weighted average over finished batches."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._tokens = 0.0
        self._slot_seconds = 0.0

    def record(self, tokens: int, slot_seconds: float) -> None:
        """Count a batch of `tokens` tokens that took `slot_seconds`.

        These are its seconds times the slots that it occupied.
        """
        kept = math.exp(-slot_seconds / (MEMORY_S * self._slots))
        self._tokens = kept * self._tokens + tokens
        self._slot_seconds = kept * self._slot_seconds + slot_seconds

    def seconds(self, tokens: int) -> float:
        """Return the expected seconds in which all slots compute `tokens` tokens.

        It is 0 before the first measurement.
        """
        return tokens * self._slot_seconds / (self._tokens * self._slots) if self._tokens else 0.0

    def retry_after_s(self, tokens: int) -> float:
        """Return the seconds for `tokens` tokens, clipped to RETRY_AFTER_S."""
        shortest, longest = RETRY_AFTER_S
        return min(max(self.seconds(tokens), shortest), longest)
