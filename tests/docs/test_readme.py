"""Facts of the README: its recipe is valid, its picture and its tree match the code, and it stays short."""

import re
import subprocess
from pathlib import Path

from doc_pages import README, ROOT, blocks, run
from tiny import write_csv

from training.pipeline.pipeline import NAMES

CODE = ("service", "training", "rollout", "bentune", "benchmarks", "recipes")


def test_it_is_short() -> None:
    assert len(README.read_text().splitlines()) < 200


def test_the_commands_for_your_own_csv(tmp_path: Path) -> None:
    """The recipe and its overrides are valid for a CSV with these columns.

    The test goes up to the training itself.
    """
    commands = next(block for block in blocks(README, "sh") if "yelp-stars" in block)
    line = commands.strip().splitlines()[0].replace(".venv/bin/", "").replace("bentune run", "bentune data")
    rows = [(f"a review about thing number {number}", str(number % 5 + 1)) for number in range(50)]
    write_csv(tmp_path / "reviews.csv", rows, ("text", "stars"))
    assert "✓ data" in run(line.replace("recipes/", f"{ROOT}/recipes/"), tmp_path)


def test_the_picture_has_the_stages_in_their_order() -> None:
    (picture,) = blocks(README, "mermaid")
    (chain,) = re.findall(r"^ *(data --> .*)$", picture, re.MULTILINE)
    assert tuple(chain.split(" --> ")) == NAMES


def test_the_tree_has_a_line_for_every_folder() -> None:
    """Every folder of the code has a line.

    So have the folders at the top of tests/ and of the repository.
    """
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    files = [Path(name) for name in tracked if not name.startswith(".")]
    folders = {folder for file in files for folder in file.parents if folder != Path()}
    wanted = {
        f"{folder}/"
        for folder in folders
        if len(folder.parts) == 1 or folder.parts[0] in CODE or (folder.parts[0] == "tests" and len(folder.parts) == 2)
    }
    (tree,) = blocks(README, "text")
    listed = [line.split()[0] for line in tree.splitlines()]
    assert sorted(listed) == sorted(wanted)


def test_the_licence_is_the_one_of_the_package() -> None:
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text()
    assert (ROOT / "LICENSE").read_text().split()[:4] == ["Apache", "License", "Version", "2.0,"]
