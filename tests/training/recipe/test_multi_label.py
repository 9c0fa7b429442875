"""Settings without a meaning for rows with any number of labels are refused at their place in the recipe."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from bentune.bundle.errors import InputError
from training.recipe.file import explain, load_recipe

RECIPE = {"task": "text-classification", "model": "m", "data": {"source": "s", "multi_label": True}}


def written(place: Path, **more: Any) -> Path:
    path = place / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE | more))
    return path


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"train": {"balance": "oversample"}}, "train: balance: .*give none or weights"),
        ({"train": {"balance": {"cap": 5}}}, "train: balance: .*give none or weights"),
        ({"train": {"early_stopping": {"metric": "mcc"}}}, "train: early_stopping.metric: mcc is for one label a row"),
        ({"search": {"metric": "balanced_accuracy"}}, "search: metric: balanced_accuracy is for one label a row"),
        ({"distill": {"teacher": "t"}}, "distill: .*no distillation"),
        ({"evaluate": {"ordinal": True}}, "evaluate: ordinal: .*no rank"),
        ({"data": {"source": "s", "label_separator": ";"}}, "data: label_separator .*set multi_label to true"),
        (
            {"data": {"source": "s", "multi_label": True, "labels": {"a": "(none)"}}},
            r"data: labels: no label may be called \(none\)",
        ),
    ],
)
def test_it_is_refused_before_anything_is_read(tmp_path: Path, more: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_recipe(written(tmp_path, **more))


def test_the_rest_may_be_asked_for(tmp_path: Path) -> None:
    data = {**RECIPE["data"], "label_separator": ";", "split": {"test": 0.2, "validation": 0.1}}
    train = {"balance": "weights", "label_smoothing": 0.1, "early_stopping": {"metric": "micro_f1"}}
    loaded = load_recipe(written(tmp_path, data=data, train=train, calibrate={"temperature": True}))
    explained = {one.key: one for one in explain(loaded)}
    assert explained["data.multi_label"].value is True
    assert explained["data.label_separator"].value == ";"
    assert all(explained[key].meaning for key in ("data.multi_label", "data.label_separator"))
