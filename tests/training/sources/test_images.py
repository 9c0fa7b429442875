"""Labelled images from folders and tables, and what the data stage makes of them."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_images import SIDES, picture, png, write_images

from bentune.bundle.errors import InputError
from service.tasks.images import decoded
from training.data import stage as data_stage
from training.pipeline.stage import Context
from training.recipe.data import DataSettings
from training.recipe.recipe import Recipe
from training.sources.images import open_image_sources, source_digests
from training.sources.raw import Raw


def settings(source: Path | str, **more: Any) -> DataSettings:
    return DataSettings.model_validate({"source": str(source), **more})


def rows_of(source: Path | str, **more: Any) -> list[Raw]:
    (found,) = open_image_sources(settings(source, **more))
    return list(found.read())


def recipe(source: Path | str, **data: Any) -> Recipe:
    least = {"name": "x", "task": "image-classification", "model": "m"}
    return Recipe.model_validate(least | {"data": {"source": str(source)} | data})


def table(folder: Path, rows: list[tuple[str, str]]) -> Path:
    path = folder / "rows.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label"), *rows])
    return path


def test_a_folder_of_classes(tmp_path: Path) -> None:
    write_images(tmp_path / "images", each=2)
    (tmp_path / "images/left/notes.txt").write_text("no image")
    rows = rows_of(tmp_path / "images")
    assert [row.origin for row in rows] == [f"{side}/{number:03}.png" for side in SIDES for number in range(2)]
    assert [row.label for row in rows] == [side for side in SIDES for _ in range(2)]
    assert rows[0].text == png(picture("bottom", 0))


def test_a_table_of_paths_and_one_of_bytes_are_the_same_rows(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", each=2)
    names = [(f"{side}/{number:03}.png", side) for side in SIDES for number in range(2)]
    by_path = rows_of(table(folder, names))
    content = [(folder / name).read_bytes() for name, _ in names]
    labels = [label for _, label in names]
    pq.write_table(pa.table({"image": content, "label": labels}), tmp_path / "bytes.parquet")
    structs = [{"bytes": one, "path": None} for one in content]
    pq.write_table(pa.table({"picture": structs, "label": labels}), tmp_path / "struct.parquet")
    by_bytes = rows_of(tmp_path / "bytes.parquet")
    by_struct = rows_of(tmp_path / "struct.parquet", columns={"image": "picture"})
    for rows in (by_path, by_bytes, by_struct):
        assert [(row.text, row.label) for row in rows] == list(zip(content, labels, strict=True))


def test_a_wrong_path_is_a_row_that_cannot_be_used(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", each=1)
    (row,) = rows_of(table(folder, [("left/none.png", "left")]))
    assert row.problem == "column 'image': there is no such file (.png, .jpg, .jpeg)"


@pytest.mark.parametrize("kind", ["folder", "table"])
def test_the_digest_changes_with_an_image(kind: str, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", each=2)
    source = folder if kind == "folder" else table(folder, [("left/000.png", "left"), ("right/000.png", "right")])
    before = source_digests(settings(source))
    assert source_digests(settings(source)) == before
    (folder / "left/000.png").write_bytes(png(picture("left", 77)))
    assert source_digests(settings(source)) != before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"split": {"test": "test"}}, "data.split.test"),
        ({"split": {"group": "customer"}}, "data.split.group: customer: a folder"),
    ],
)
def test_what_a_folder_does_not_have_is_refused(more: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        open_image_sources(settings(write_images(tmp_path / "images", each=1), **more))


def test_sources_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no <class>/<image>"):
        open_image_sources(settings(tmp_path))
    with pytest.raises(InputError, match="is not on this machine"):
        open_image_sources(settings("somebody/beans"))
    (tmp_path / "rows.csv").write_text("file,label\na.png,left\n")
    with pytest.raises(InputError, match="has no column 'image'"):
        open_image_sources(settings(tmp_path / "rows.csv"))


def test_the_data_stage_leaves_out_pictures_that_it_has(tmp_path: Path, context: Callable[..., Context]) -> None:
    """The same pixels in another file are a duplicate.

    Pictures that every model sees alike have no place on two sides.
    """
    folder = write_images(tmp_path / "images", each=10)
    (folder / "left/copy.png").write_bytes(png(picture("left", 3), compress_level=0))
    (folder / "right/wrong.png").write_bytes(png(picture("left", 4)))
    given = context(recipe(folder))
    summary = data_stage.run(given).written()
    assert {reason: found["rows"] for reason, found in summary["dropped"].items()} == {
        "duplicate": 1,
        "same text as another row, other label": 1,
    }
    assert summary["rows"] == {"train": 24, "test": 6}
    table = pa.concat_tables([pq.read_table(given.work / f"{name}.parquet") for name in ("train", "test")])
    for row in table.to_pylist():
        content = decoded(row["text"])
        assert row["origin"].endswith("copy.png") or content == (folder / row["origin"]).read_bytes()
    report = json.loads((given.work / "report.json").read_text())
    assert report["duplicates"][0]["samples"][0]["other"]["text"] == "data:image/png;base64"


def test_the_fingerprint_is_of_the_pixels(tmp_path: Path, context: Callable[..., Context]) -> None:
    folder = write_images(tmp_path / "images", each=5)
    first = data_stage.run(context(recipe(folder))).fingerprint
    again = tmp_path / "again"
    for side in SIDES:
        (again / side).mkdir(parents=True)
        for number in range(5):
            (again / side / f"z{9 - number}.png").write_bytes(png(picture(side, number), compress_level=1))
    assert data_stage.run(context(recipe(again))).fingerprint == first
    shutil.copyfile(again / "left/z9.png", again / "left/more.png")
    (again / "left/z9.png").write_bytes(png(picture("left", 50)))
    assert data_stage.run(context(recipe(again))).fingerprint != first


def test_a_damaged_image_stops_the_run_or_is_left_out(tmp_path: Path, context: Callable[..., Context]) -> None:
    folder = write_images(tmp_path / "images", each=5)
    (folder / "left/000.png").write_bytes(png(picture("left", 0))[:150])
    with pytest.raises(InputError, match=r"left/000\.png: the image is an image that is damaged or cut off"):
        data_stage.run(context(recipe(folder)))
    summary = data_stage.run(context(recipe(folder, invalid_rows="drop"))).written()
    assert sum(summary["rows"].values()) == 14
