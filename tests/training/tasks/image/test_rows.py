"""Images as training sees them: another view in every epoch, the same after a resume, and never where it measures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import Quiet
from tiny_images import SIDES, make_image_model, picture, png

from service.tasks.images import data_url
from training.recipe.recipe import Recipe
from training.recipe.train import AugmentSettings
from training.tasks.base.load import load_base, load_image_processor
from training.tasks.image.processor import ImageProcessor
from training.tasks.image.rows import ImageRows, collated
from training.tasks.logits import one_batch, torch_logits
from training.tasks.rows import Rows
from training.tasks.targets.losses import cross_entropy
from training.train.fit.fit import fit


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image_model(tmp_path_factory.mktemp("model") / "vit")


def recipe(model: Path, **train: Any) -> Recipe:
    least = {"name": "x", "task": "image-classification", "data": {"source": "s"}, "method": "full"}
    settings = {"epochs": 2, "batch_size": 4, "checkpoint_steps": 2, "learning_rate": 0.002} | train
    return Recipe.model_validate(least | {"model": str(model), "train": settings})


@pytest.fixture(scope="module")
def processor(model: Path) -> ImageProcessor:
    return load_image_processor(recipe(model))


@pytest.fixture(scope="module")
def rows() -> Rows:
    pictures = [(side, number) for number in range(4) for side in SIDES]
    texts = [data_url(png(picture(side, number))) for side, number in pictures]
    return Rows(texts, None, np.array([SIDES.index(side) for side, _ in pictures], dtype=np.int64))


AUGMENT = AugmentSettings(rotation=20, crop=0.5, flip="horizontal")


def values(rows: ImageRows, epoch: int) -> list[np.ndarray]:
    rows.epoch = lambda: epoch
    return [rows[row]["pixel_values"] for row in range(len(rows))]


def test_each_epoch_and_row_has_its_own_view(processor: ImageProcessor, rows: Rows) -> None:
    plain = ImageRows(rows, processor)
    seen = plain.augmented(AUGMENT, 7)
    first, again, later = values(seen, 0), values(seen, 0), values(seen, 1)
    other_seed = values(plain.augmented(AUGMENT, 8), 0)
    for row, unchanged in enumerate(values(plain, 0)):
        assert np.array_equal(first[row], again[row])
        assert not np.array_equal(first[row], unchanged)
        assert not np.array_equal(first[row], later[row])
        assert not np.array_equal(first[row], other_seed[row])
    twice = ImageRows(rows.take(np.array([0, 0])), processor).augmented(AUGMENT, 7)  # as oversampling repeats them
    assert not np.array_equal(*values(twice, 0))


def test_without_augmentation_they_are_what_the_model_measures_with(processor: ImageProcessor, rows: Rows) -> None:
    plain = ImageRows(rows, processor)
    assert plain.augmented(AugmentSettings(), 7) is plain
    batch = one_batch(processor, rows, 256)["pixel_values"].numpy()
    assert np.array_equal(np.stack(values(plain, 3)), batch)
    made = collated([plain[0], plain[5]])
    assert (made["pixel_values"].dtype, made["labels"].dtype) == (torch.float32, torch.int64)
    assert made["labels"].tolist() == rows.labels[[0, 5]].tolist()
    assert plain.lengths == [5] * len(rows)


def test_logits_do_not_depend_on_the_batch(model: Path, processor: ImageProcessor, rows: Rows) -> None:
    loaded = load_base(recipe(model), list(SIDES)).model
    logits, seen = torch_logits(loaded, processor, rows, 256, lambda _: None, batch_size=5)
    alone, seen_alone = torch_logits(loaded, processor, rows, 256, lambda _: None, batch_size=1)
    assert np.abs(logits - alone).max() < 1e-5
    assert seen == seen_alone
    assert len({one[0] for one in seen}) == len(rows)


class _Stop(Exception):
    pass


def test_a_training_that_goes_on_sees_the_views_that_it_would_have_seen(
    model: Path, processor: ImageProcessor, rows: Rows, tmp_path: Path
) -> None:
    """Killed in the middle of its second epoch, it ends with the same weights."""
    from transformers import TrainerCallback

    class Kill(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 5:
                raise _Stop

    def train(directory: Path, *callbacks: Any) -> dict[str, torch.Tensor]:
        asked = recipe(model)
        loaded = load_base(asked, list(SIDES)).model
        seen = ImageRows(rows, processor).augmented(AUGMENT, asked.seed)
        fit(loaded, processor, asked, seen, None, directory, Quiet(), cross_entropy, callbacks=callbacks)
        return loaded.state_dict()

    whole = train(tmp_path / "whole")
    with pytest.raises(_Stop):
        train(tmp_path / "killed", Kill())
    resumed = train(tmp_path / "killed")
    for name, weight in whole.items():
        assert torch.allclose(weight, resumed[name], atol=1e-6), name
    unchanged = load_base(recipe(model), list(SIDES)).model.state_dict()
    assert any(not torch.equal(weight, unchanged[name]) for name, weight in whole.items())


def test_validation_rows_are_never_augmented(
    model: Path, processor: ImageProcessor, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are scored in training as they are scored afterwards."""
    loaded = load_base(recipe(model), list(SIDES)).model
    seen = ImageRows(rows, processor).augmented(AUGMENT, 1)
    fitted = fit(
        loaded, processor, recipe(model), seen, ImageRows(rows, processor), tmp_path / "fit", Quiet(), cross_entropy
    )
    best = next(
        extra["eval_accuracy"]
        for point in fitted.curve
        if point.step == fitted.best_step and "eval_accuracy" in (extra := point.model_extra or {})
    )
    logits, _ = torch_logits(loaded, processor, rows, 256, lambda _: None)
    assert best == pytest.approx((logits.argmax(axis=1) == rows.labels).mean())
