"""Drain rate of the queue: for Retry-After, and to refuse what would only miss its deadline."""

import math

RETRY_AFTER_S = (1.0, 60.0)
"""The shortest and the longest wait that a refused client is asked for."""

MEMORY_S = 5.0
"""For how long what was measured counts, in seconds. Batches may hold one text: ten of them said nothing."""


class DrainRate:
    """Rate at which the slots compute, measured on finished batches, the latest weighing most."""

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
        """Return the seconds until all slots will have computed `tokens` tokens.

        They are 0 before anything was measured.
        """
        return tokens * self._slot_seconds / (self._tokens * self._slots) if self._tokens else 0.0

    def retry_after_s(self, tokens: int) -> float:
        """Return the same, within RETRY_AFTER_S."""
        shortest, longest = RETRY_AFTER_S
        return min(max(self.seconds(tokens), shortest), longest)
