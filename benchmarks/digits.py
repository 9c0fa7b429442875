"""Handwritten digits of scikit-learn as 1,797 images, a folder per class, and a small Vision Transformer.

    python -m benchmarks.digits DIRECTORY

writes DIRECTORY/images/<digit>/<number>.png (8 x 8 pixels, gray) and DIRECTORY/model with random weights: no package
ships a pretrained model, and this one trains from scratch in a minute.
"""

import sys
from pathlib import Path

import numpy as np


def write_images(directory: Path) -> int:
    """Write every digit; return their number."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = directory / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        grey = np.round(pixels * (255 / 16)).astype(np.uint8)  # scanned in 17 levels
        Image.fromarray(grey).save(folder / f"{number:04}.png")
    return len(digits.images)


def write_model(directory: Path, *, hidden: int = 64, layers: int = 4, seed: int = 0) -> None:
    """Write a Vision Transformer (Dosovitskiy et al. 2020) and its image processor.

    An image has 16 patches.
    """
    import torch
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    torch.manual_seed(seed)
    config = ViTConfig(
        image_size=8,
        patch_size=2,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * hidden,
        initializer_range=0.1,  # random weights of the default scale are too small to train from
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(directory)
    ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(directory)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    root = Path(sys.argv[1])
    print(f"{write_images(root / 'images')} images in {root / 'images'}")  # noqa: T201
    write_model(root / "model")
    print(f"a Vision Transformer with random weights in {root / 'model'}")  # noqa: T201
