"""A tiny Vision Transformer and images that it can learn in seconds."""

from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tiny import Quiet

SIDES = ("bottom", "left", "right")


def picture(side: str, number: int) -> Any:
    """Return an RGB image of 12 x 10 pixels that is bright on one side.

    Its noise is another one for each number.
    """
    from PIL import Image

    random = np.random.default_rng([SIDES.index(side), number])
    pixels = random.integers(0, 90, (10, 12, 3), dtype=np.uint8)
    bright = {"bottom": np.s_[6:], "left": np.s_[:, :5], "right": np.s_[:, 7:]}[side]
    pixels[bright] += 140
    return Image.fromarray(pixels)


def png(image: Any, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def write_images(root: Path, each: int = 30) -> Path:
    """A folder with one sub-folder per side, of PNG images."""
    for side in SIDES:
        (root / side).mkdir(parents=True)
        for number in range(each):
            (root / side / f"{number:03}.png").write_bytes(png(picture(side, number)))
    return root


def make_image_model(directory: Path) -> Path:
    """Write a Vision Transformer of two layers and its image processor.

    The processor makes every image 8 x 8.
    """
    import torch
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(
        image_size=8,
        patch_size=4,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        initializer_range=0.1,
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(directory)
    ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(directory)
    return directory


def image_recipe(path: Path, model: Path, source: Path, **more: Any) -> Path:
    """A recipe that trains the tiny Vision Transformer in a few seconds."""
    recipe = {
        "task": "image-classification",
        "model": str(model),
        "data": {"source": str(source)},
        "method": "full",
        "train": {"epochs": 6, "learning_rate": 0.005, "checkpoint_steps": 20},
        "verify": {"rows": 16, "golden_rows": 6},
        "evaluate": {"resamples": 200},
        "plan": {"seconds": 0.05, "rows": 16, "batch_rows": 8, "calibration_rows": 8, "variants": []},
    } | more
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def bundle_of(recipe_file: Path, run: Path, root: Path) -> Path:
    """The bundle that the package stage would store, without the store and the Bento."""
    from bentune.bundle.manifest import seal
    from training import package
    from training.pipeline.stage import Context
    from training.recipe.file import load_recipe

    recipe = load_recipe(recipe_file).recipe
    stages = ("data", "train", "evaluate", "merge", "export", "verify", "plan")
    context = Context(recipe, root, {name: run / name for name in stages}, Quiet())
    root.mkdir()
    package._fill(root, context)
    seal(root, package._manifest(context, "1", datetime.now(UTC)))
    return root
