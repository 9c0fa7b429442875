"""Pieces of texts in the data stage's report: they are short and show what matters."""

from hypothesis import given
from hypothesis import strategies as st

from training.data.report import SHOWN_CHARACTERS, difference, shown


def test_a_long_text_is_cut_and_on_one_line() -> None:
    assert shown("two\nlines  here") == "two lines here"
    assert shown("\ud800 half") == "? half"
    assert shown("x" * 500) == "x" * (SHOWN_CHARACTERS - 1) + "…"


def test_a_difference_is_shown_where_it_is() -> None:
    before, after = difference("a" * 1000 + "<br>b", "a" * 1000 + " b")
    assert (before, after) == ("…" + "a" * 40 + "<br>b", "…" + "a" * 40 + " b")
    assert difference("abc\x07", "abc") == ("abc\x07", "abc")


@given(st.text(max_size=400), st.text(max_size=400))
def test_pieces_are_never_longer_than_they_may(before: str, after: str) -> None:
    assert all(len(piece) <= SHOWN_CHARACTERS for piece in (shown(before), *difference(before, after)))
