"""Facts of docs/data: commands run, tables and numbers are those of the code."""

import csv
import re
from pathlib import Path

import numpy as np
import yaml
from doc_pages import DOCS, ROOT, blocks, commands_of, defaults_of, files_of, run, shell, values_of

from bentune.bundle.rows.form import FileForm
from bentune.bundle.rows.read import PACKED, SUFFIXES
from bentune.bundle.targets.target import NO_LABEL
from bentune.commands.predict import predict
from bentune.quality.classification import Classification
from training.data.cautions import TRUNCATED, UNKNOWN
from training.data.label_errors import FOLDS, LEAST_ACCURACY, MOST_ROWS
from training.recipe.data import CleanSettings, NearDuplicateSettings
from training.recipe.file import load_recipe
from training.recipe.train import AugmentSettings
from training.tasks.targets.many_labels import MOST_LABELS

PAGES = DOCS / "data"
VIEWS = ("rotation", "crop", "flip")


def test_your_data_page(tmp_path: Path) -> None:
    page = PAGES / "your-data.md"
    for name, content in files_of(page).items():
        (tmp_path / name).write_text(content)
    output = "".join(run(command, tmp_path) for command in commands_of(page))
    assert "reviews.csv" in output
    assert "✓ data" in output


def test_files_page(tmp_path: Path) -> None:
    """Its commands read its files, one of them in GBK; its table has the recipe's keys and the command's options."""
    page = PAGES / "files.md"
    for name, content in files_of(page).items():
        (tmp_path / name).write_bytes(content.encode("gbk" if name.endswith(".csv") else "utf-8"))
    outputs = [run(command, tmp_path) for command in commands_of(page)]
    assert "read as gbk, for example: 水壶很好，烧水很快" in outputs[0]
    assert "10 rows read, 10 used" in outputs[0]
    assert "of the tokens are unknown to the base model's tokenizer" in " ".join(outputs[0].split())
    assert "10 rows read, 10 used" in outputs[1]
    rows = re.findall(r"^\| `data\.(\w+)` \| `--(\w+)` \|", page.read_text(), re.MULTILINE)
    assert sorted(key for key, _ in rows) == sorted(FileForm.model_fields)
    options = {option for parameter in predict.params for option in parameter.opts}
    assert {f"--{option}" for _, option in rows} <= options
    for number in (f"{UNKNOWN * 100:.0f} %", f"{TRUNCATED * 100:.0f} %"):
        assert number in page.read_text()
    cells = " ".join(re.findall(r"^\| (`\..*?) \|", page.read_text(), re.MULTILINE))
    assert set(re.findall(r"`(\.\w+)", cells)) <= {*SUFFIXES, *PACKED}


def test_cleaning_page(tmp_path: Path) -> None:
    page = PAGES / "cleaning.md"
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    output = "".join(run(command, tmp_path) for command in commands_of(page))
    assert re.search(r"split 25% by customer_id, each of its 31 ", output)
    assert "2026-05-07T08:00:00+00:00" in output
    rules = defaults_of(CleanSettings) | defaults_of(NearDuplicateSettings)
    assert values_of(page).items() >= rules.items()


def test_data_care_page(tmp_path: Path) -> None:
    page = PAGES / "data-care.md"
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    output = "".join(run(command, tmp_path) for command in commands_of(page))
    assert re.search(r"4 │ label probably wrong +│ left out", output)
    assert "train.balance" in output
    recipe = load_recipe(ROOT / "recipes/methods/bbc-imbalanced.yaml").recipe
    (given,) = blocks(page, "yaml")
    assert yaml.safe_load(given)["train"]["augment"] == recipe.train.augment.model_dump(exclude_unset=True)
    rows = re.findall(r"^\| `([^`]+)` \|", page.read_text(), re.MULTILINE)
    of_labels, of_balance = ["show", "remove", "off"], ["none", "weights", "oversample", "{cap: N}"]
    assert rows == ["data.doubtful_labels", *of_labels, "train.balance", *of_balance]
    for number in (f"{LEAST_ACCURACY * 100:.0f} %", f"{MOST_ROWS:,} rows", f"{FOLDS} training rows"):
        assert number in page.read_text()


def test_multi_label_page(tmp_path: Path) -> None:
    """The recipe is read, the tables name metrics, the numbers are those of the rows."""
    page = PAGES / "multi-label.md"
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    read, all_of_it = commands_of(page)
    recipe_file = read.split()[-1]
    assert all_of_it == f"bentune run {recipe_file}"
    recipe = load_recipe(ROOT / recipe_file).recipe
    assert (recipe.data.multi_label, recipe.data.label_separator, recipe.calibrate.temperature) == (True, ";", True)
    output = run(read, tmp_path)
    assert "420 rows read, 420 used" in output
    assert "no label" in output
    text = " ".join(page.read_text().split())
    named = {
        name for row in re.findall(r"^\| (`[a-z].*?) \|", page.read_text(), re.MULTILINE) for name in row.split(", ")
    }
    assert {name.strip("`") for name in named} <= set(Classification.model_fields)
    with (ROOT / recipe.data.sources[0]).open(newline="") as file:
        topics = [row["topics"].split(";") if row["topics"] else [] for row in csv.DictReader(file)]
    assert (len({name for one in topics for name in one}), max(map(len, topics))) == (5, 3)
    assert str(len(topics)) in text
    assert f"{np.mean([not one for one in topics]) * 100:.0f} %" in text
    assert f"{MOST_LABELS:,} labels" in text
    assert f"`{NO_LABEL}`" in text


def test_images_page(tmp_path: Path) -> None:
    """The page's digits are written and read, and its table matches the code.

    The files that its requests name are there.
    """
    page = PAGES / "images.md"
    for name in ("recipes", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    written, asked = blocks(page, "sh")
    write, *commands = written.strip().splitlines()
    shell(write, tmp_path)
    output = "".join(run(command, tmp_path) for command in commands)
    assert "1,797 rows read, 1,797 used" in output
    assert "train.augment.rotation" in output
    augment = {name: default for name, default in defaults_of(AugmentSettings).items() if name in VIEWS}
    assert values_of(page).items() >= augment.items()
    for file in re.findall(r"digits/images/\S+?\.png", asked):
        assert (tmp_path / file).is_file()
    assert not load_recipe(ROOT / "recipes/digits.yaml").recipe.train.augment.copies
