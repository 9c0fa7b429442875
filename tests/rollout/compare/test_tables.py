"""Output to a terminal: no values of rows that it would obey."""

import pytest

from rollout.compare.tables import plain


@pytest.mark.parametrize(
    ("value", "shown"), [("\x1b[31mred", "�[31mred"), ("a\nb\x07", "a�b�"), ("Grüße 你好 +1.2", "Grüße 你好 +1.2")]
)
def test_control_characters_are_not_printed(value: str, shown: str) -> None:
    assert plain(value) == shown
