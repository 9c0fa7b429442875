"""Memory: how requests are divided and texts are mixed, and what is called flat."""

import json

import pytest

from benchmarks.memory import Footprint, MemoryPoint, MemoryReport, mixed_texts, parts_of, table_of, textbook_bodies
from rollout.load.bodies import bodies_of


def footprint(*rss_mb: float, peak_mb: float) -> Footprint:
    points = [MemoryPoint(requests=n, rss_mb=value) for n, value in enumerate(rss_mb)]
    return Footprint(server="a:1", points=points, peak_mb=peak_mb)


@pytest.mark.parametrize(("requests", "parts"), [(100, [20] * 5), (7, [1, 2, 1, 2, 1]), (2, [1, 1])])
def test_requests_are_divided_without_empty_parts(requests: int, parts: list[int]) -> None:
    assert sorted(parts_of(requests, 5)) == sorted(parts)
    assert sum(parts_of(requests, 5)) == requests


def test_texts_are_beginnings_of_many_lengths() -> None:
    mixed = mixed_texts([("one two three four", None), ("five", "six")], 200, seed=0)
    assert {text for text, _ in mixed} == {"one", "one two", "one two three", "one two three four", "five"}
    assert {pair for text, pair in mixed if text == "five"} == {"six"}
    assert mixed == mixed_texts([("one two three four", None), ("five", "six")], 200, seed=0)


def test_growth_counts_from_the_end_of_the_warm_up() -> None:
    flat = MemoryReport(ours=footprint(100, 104, 105, peak_mb=120), textbook=None)
    grown = MemoryReport(ours=footprint(100, 106, 100, peak_mb=106), textbook=footprint(200, 210, peak_mb=212))
    assert (flat.flat, flat.of_textbook) == (True, None)
    assert (grown.flat, grown.of_textbook) == (False, 0.5)
    assert table_of(grown).row_count == 3 + 1 + 2 + 1 + 2


def test_the_textbook_is_asked_for_a_list_of_strings() -> None:
    [one] = textbook_bodies(bodies_of([("a", None)], batch=1, seed=0))
    [two] = textbook_bodies(bodies_of([("a", None), ("b", None)], batch=2, seed=0))
    assert json.loads(one.content) == {"inputs": ["a"]}
    assert sorted(json.loads(two.content)["inputs"]) == ["a", "b"]
    assert two.inputs == 2
