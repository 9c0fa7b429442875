"""Facts that hold for every page: links lead somewhere, commands and paths exist, the index is complete."""

import re
import shlex
from pathlib import Path

import click
import pytest
from doc_pages import DOCS, README, ROOT, commands_of

from bentune.cli import cli

PAGES = sorted([README, *DOCS.rglob("*.md")])
HISTORY = DOCS / "log.md"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_pages_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.is_file(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_have_these_options(page: Path) -> None:
    for line in commands_of(page):
        words = shlex.split(line)
        if Path(words[0]).name == "bentune":
            command, context = cli, click.Context(cli)
            name, command, arguments = command.resolve_command(context, words[1:])
            command.make_context(name, arguments, resilient_parsing=False)


@pytest.mark.parametrize("page", [page for page in PAGES if page != HISTORY], ids=lambda page: page.stem)
def test_paths_of_the_repository_exist(page: Path) -> None:
    for path in re.findall(r"`((?:recipes|k8s|benchmarks|tests)/[\w./-]+)`", page.read_text()):
        assert (ROOT / path).exists(), path


def test_the_index_links_every_page_and_the_readme_links_the_index() -> None:
    index = DOCS / "README.md"
    linked = {(DOCS / name).resolve() for name in re.findall(r"\]\(([\w/-]+\.md)\)", index.read_text())}
    assert linked == {page.resolve() for page in DOCS.rglob("*.md")} - {index}
    assert "](docs/README.md)" in README.read_text()


def test_the_glossary_defines_each_word_once() -> None:
    words = re.findall(r"^\| ([a-zA-Z ]+) \| \S", (DOCS / "glossary.md").read_text(), re.MULTILINE)
    defined = [word for word in words if word != "word"]
    assert len(defined) == len(set(defined))
    assert {"bundle", "golden row", "hop", "plan", "verdict", "run", "stage", "slot", "padding bound"} <= set(defined)


def test_every_command_is_listed() -> None:
    listed = re.findall(r"^\| `bentune ([a-z]+)", (DOCS / "commands.md").read_text(), re.MULTILINE)
    assert set(listed) == set(cli.commands)
