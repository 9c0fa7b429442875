"""The page: the verdict first, nothing from outside unescaped, texts cut, and no other file needed."""

import re
from html.parser import HTMLParser

import pytest
from comparisons import LOSS, NASTY
from comparisons import comparison as found

from rollout.compare.page import SHOWN_CHARACTERS, Axis, page_of
from rollout.compare.tables import notes, numbers, tables, verdict_lines


class Outline(HTMLParser):
    """Content that a browser would read: the tags, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page() -> None:
    page = page_of(found(), {7: (f"{NASTY} " + "long " * 200, "its pair")})
    outline = Outline(page)
    assert "NEED MORE ROWS: 1,240 in all" in outline.text
    assert outline.text.index("NEED MORE ROWS") < outline.text.index("The numbers") < outline.text.index("slice")
    assert "needs 1,240 rows in all" in outline.text
    assert "script" not in outline.tags
    assert outline.text.count(NASTY) == 2  # the slice's value and the example, as text
    assert "Right before, wrong now: 1" in outline.text
    assert "candidate dog (93%), served cat (60%)" in outline.text
    (article,) = re.findall(r"<article><p>(.*?)</p>", page, re.DOTALL)
    assert len(article) < SHOWN_CHARACTERS + 100
    assert article.endswith("… / its pair")
    # Nothing is loaded from elsewhere.
    assert {"src", "href"}.isdisjoint(name for name, _ in outline.attributes)
    assert not re.search(r"url\(|@import", page)
    assert "50% to 100%" in outline.text
    assert "0% to 50%" not in outline.text
    assert outline.tags[0] == "html"
    assert page.startswith("<!doctype html>")


def test_where_an_interval_is_drawn() -> None:
    axis = Axis(span=0.1, margin=0.01)
    assert (axis.at(0), axis.at(-0.1), axis.at(0.05), axis.at(-3)) == (50, 0, 75, 0)
    bar = axis.bar(LOSS)
    assert (bar.value, bar.low, bar.width) == (pytest.approx(40), pytest.approx(25), pytest.approx(30))


def test_the_tables() -> None:
    rows = {name.strip(): rest for name, *rest in numbers(found())}
    assert rows["accuracy"] == ["90.00%", "92.00%", "-2.00 [-5.00, +1.00] points"]
    assert rows["log loss"][:2] == ["0.3000", "0.2500"]
    assert rows["right, the other wrong"] == ["1 rows", "2 rows", "McNemar's exact p = 1"]
    assert rows["size of the model"] == ["90.0 MB", "n/a", "n/a"]
    assert rows["runs as"][0] == "fp32, CPU"
    assert rows["latency of one text, p50 / p95"] == ["10.0 / 20.0 ms"] * 2 + ["1.00 times [0.90, 1.10]"]
    said = "\n".join(notes(found()))
    assert "left out: 2 rows with the text of an earlier row" in said
    assert "left out: 3 rows that a side was trained on" in said
    assert "takes one in 9 new rows" in said
    assert "compared 2 times before" in said
    assert "NEED MORE ROWS" in verdict_lines(found())[0]
    assert len(tables(found())) == 2 + len(verdict_lines(found()))
