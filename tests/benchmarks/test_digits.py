"""The digits as files, and the model that comes with them."""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from transformers import AutoModelForImageClassification

from benchmarks.digits import write_images, write_model
from training.tasks.image.processor import ImageProcessor


def test_every_digit_is_there_as_it_was_scanned(tmp_path: Path) -> None:
    assert write_images(tmp_path) == len(list(tmp_path.glob("*/*.png"))) == 1797
    digits = load_digits()
    for number in (0, 7, 1796):
        image = np.asarray(Image.open(tmp_path / str(digits.target[number]) / f"{number:04}.png"), dtype=float)
        assert np.abs(image * 16 / 255 - digits.images[number]).max() < 0.05


def test_the_model_takes_them(tmp_path: Path) -> None:
    write_model(tmp_path)
    assert ImageProcessor.of(tmp_path).settings.shape == (8, 8)
    model = AutoModelForImageClassification.from_pretrained(tmp_path, num_labels=10)
    assert model.config.num_labels == 10
