"""Families of base models: some really run from rows to a served answer, and the page has a line for each."""

import re
from pathlib import Path

import pytest
from doc_pages import DOCS

from benchmarks.families import Family, families, markdown, measure


@pytest.mark.parametrize("name", ["gpt2", "mpnet"])
def test_a_family_is_served_whole_and_its_adapter_exported(name: str, tmp_path: Path) -> None:
    """GPT-2 has padding ids to set and no torch Linear, MPNet takes no token types."""
    assert measure(name, tmp_path) == Family(name, "yes", "yes")


def test_the_page_has_a_line_for_every_family() -> None:
    page = (DOCS / "models.md").read_text()
    rows = re.findall(r"^\| `(.*?)` \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    assert sorted(name for name, _, _ in rows) == families()
    assert ("bert", "yes", "yes") in rows


def test_those_that_are_served_come_first() -> None:
    found = [Family("b", "no", "yes"), Family("c", "yes", "no"), Family("a", "yes", "yes")]
    assert re.findall(r"`(\w)`", markdown(found)) == ["a", "c", "b"]
