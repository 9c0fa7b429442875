"""Bounds of a batch: items, padded tokens, and the share of them that is padding."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchShape:
    """Bounds of a batch. Only an item that runs alone may be over `token_budget`."""

    token_budget: int
    """Padded tokens: items times the longest item."""
    padding_bound: float
    """The largest share of the padded tokens that may be padding, 0 to 1."""
    max_items: int

    def __post_init__(self) -> None:
        if self.token_budget < 1 or self.max_items < 1 or not 0 <= self.padding_bound <= 1:
            raise ValueError(f"token_budget and max_items must be at least 1, padding_bound from 0 to 1: {self}")

    def fits(self, items: int, tokens: int, longest: int) -> bool:
        """Return true if a batch of `items` items is within bounds.

        It has `tokens` tokens in all, and `longest` in its longest item.
        """
        padded = items * longest
        padding_ratio = (padded - tokens) / padded
        return items <= self.max_items and padded <= self.token_budget and padding_ratio <= self.padding_bound
