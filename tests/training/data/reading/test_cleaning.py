"""The rules that mend texts: what they find, and what they must leave alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.reading.cleaning import clean, decoded_again, without_control_characters, without_html
from training.recipe.data import CleanSettings

ALL = CleanSettings(control_characters="fix", mojibake="fix", html="fix")


@pytest.mark.parametrize(
    ("given_", "mended"),
    [
        ("a<br>b", "a b"),
        ("<p class='x'>A <b>bold</b> word</p>", "A bold word"),
        ("<script>alert(1)</script>text", "text"),
        ("before <!-- a note --> after", "before after"),
        ("fish &amp; chips &pound;5 &#233;t&#xe9;", "fish & chips £5 été"),
        ("&amp;lt;br/&amp;gt;two", "two"),
        ("a&nbsp;b", "a b"),
    ],
)
def test_remains_of_html_become_text(given_: str, mended: str) -> None:
    assert without_html(given_) == mended


@pytest.mark.parametrize(
    "text", ["I <3 you", "a < b and c > d", "<your name>", "AT&T; really", "x && y", "tom&jerry", "1 <2> 3", "if (a<b)"]
)
def test_what_only_looks_like_html_stays(text: str) -> None:
    assert without_html(text) == text


@pytest.mark.parametrize(
    ("given_", "mended"), [("a\x00b\x07", "ab"), ("page\x0cbreak", "page break"), ("\ufeffstart", "start")]
)
def test_control_characters_go_and_line_ends_stay(given_: str, mended: str) -> None:
    assert without_control_characters(given_) == mended
    assert without_control_characters("tab\tline\r\n") == "tab\tline\r\n"


@pytest.mark.parametrize(
    ("given_", "mended"), [("cafÃ©", "café"), ("donâ\x80\x99t", "don’t"), ("café", "café"), ("plain", "plain")]
)
def test_wrongly_decoded_texts_are_decoded_again(given_: str, mended: str) -> None:
    assert decoded_again(given_) == mended


def test_by_default_a_text_stays_as_it_is_and_what_was_found_is_told() -> None:
    text = "<b>cafÃ©</b>\x07"
    assert clean(text, CleanSettings()) == (
        text,
        [
            ("mojibake", text, "<b>café</b>\x07"),
            ("control_characters", text, "<b>cafÃ©</b>"),
            ("html", text, "cafÃ© \x07"),
        ],
    )
    assert clean(text, ALL)[0] == "café"
    assert clean(text, CleanSettings(control_characters="off", mojibake="off", html="off")) == (text, [])
    # Half of a letter is a control character: the decoding must come before they are removed.
    assert clean("donâ\x80\x99t", ALL)[0] == "don’t"


@given(st.text(st.sampled_from("ab <>&;/br#3\x07\n"), max_size=40))
def test_a_clean_text_stays_as_it_is(text: str) -> None:
    once = clean(text, ALL)[0]
    if "&" not in once and "<" not in once:
        assert clean(once, ALL) == (once, [])
