"""Training and validation sets of the trials, both taken from the run's training rows."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bentune.bundle.errors import InputError
from bentune.bundle.files import write_json
from training.pipeline.layout import DataFiles
from training.recipe.recipe import Recipe
from training.tasks.registry import target_of
from training.tasks.rows import label_column
from training.tasks.saved import labels_of


def search_rows(recipe: Recipe, data: Path, directory: Path) -> tuple[Path, dict[str, int]]:
    """Choose the trials' data directory and count its training and validation rows.

    Where the data stage wrote a validation set, it is the stage's directory. Otherwise the seed draws a share
    `search.validation` of each label's training rows as validation set, and `directory` holds both sets. No trial uses
    the test set. Raises InputError when there are too few rows for both sets.
    """
    names = ("train", "validation")
    if not DataFiles(data).validation.is_file():
        table = pq.read_table(DataFiles(data).train)
        apart = target_of(recipe).draw_gold(label_column(table), recipe.search.validation, recipe.seed)
        if not apart.any() or apart.all():
            raise InputError(
                f"search.validation: a share of {recipe.search.validation} of {len(apart)} training rows leaves "
                "one set empty; give another share, or more rows"
            )
        directory.mkdir(parents=True, exist_ok=True)
        for name, chosen in zip(names, (~apart, apart), strict=True):
            pq.write_table(table.filter(pa.array(chosen)), DataFiles(directory).part(name))
        write_json(DataFiles(directory).labels, labels_of(data))
        shutil.copyfile(DataFiles(data).target, DataFiles(directory).target)
        data = directory
    return data, {name: pq.read_metadata(DataFiles(data).part(name)).num_rows for name in names}
