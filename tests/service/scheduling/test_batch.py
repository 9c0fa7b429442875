"""Bounds of a batch, at and beside each of them."""

import pytest

from service.scheduling.batch import BatchShape

SHAPE = BatchShape(token_budget=200, padding_bound=0.15, max_items=2)


@pytest.mark.parametrize(
    ("items", "tokens", "longest", "fits"),
    [
        (2, 170, 100, True),  # 30 of 200 are padding
        (2, 169, 100, False),
        (2, 202, 101, False),  # over the budget
        (3, 30, 10, False),
        (1, 200, 200, True),
    ],
)
def test_all_bounds_are_inclusive(items: int, tokens: int, longest: int, fits: bool) -> None:
    assert SHAPE.fits(items, tokens, longest) is fits


@pytest.mark.parametrize("wrong", [(0, 0.1, 1), (1, -0.1, 1), (1, 1.1, 1), (1, 0.1, 0), (1, float("nan"), 1)])
def test_a_batch_shape_is_checked(wrong: tuple[int, float, int]) -> None:
    with pytest.raises(ValueError, match="padding_bound"):
        BatchShape(*wrong)
