"""Dataset of images that are decoded on access, so that only one batch is in memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from service.tasks.images import FloatArray, pixel_values
from training.recipe.train import AugmentSettings
from training.tasks.image.augment import augmented
from training.tasks.image.processor import ImageProcessor
from training.tasks.rows import Rows


@dataclass
class ImageRows(Dataset):  # type: ignore[type-arg]  # of dicts
    """Dataset of `pixel_values`, float32 [3, height, width], and `labels`.

    With `augment` every epoch has its own view of each image, which depends on seed, epoch and row alone.
    """

    rows: Rows
    processor: ImageProcessor
    augment: AugmentSettings | None = None
    seed: int = 0
    epoch: Callable[[], int] = lambda: 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        image = self.processor.read(self.rows.texts[row])
        if self.augment is not None:
            image = augmented(image, self.augment, np.random.default_rng([self.seed, self.epoch(), row]))
        # The same values as the model's own processor, as checked in loading, in a quarter of the time.
        values = pixel_values(image, self.processor.settings)
        return {"pixel_values": values, "labels": int(self.rows.labels[row])}

    def augmented(self, settings: AugmentSettings, seed: int) -> "ImageRows":
        """Return the rows with augmentation, for the training set only."""
        return replace(self, augment=settings, seed=seed) if settings.changes_images else self

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each image, the same for all."""
        return [self.processor.limits.max_tokens] * len(self)


def collated(rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Collate a batch into `pixel_values` and `labels`.

    `pixel_values` are float32 [rows, 3, height, width], `labels` are int64 [rows].
    """
    return {
        "pixel_values": torch.from_numpy(np.stack([row["pixel_values"] for row in rows])),
        "labels": torch.tensor([row["labels"] for row in rows], dtype=torch.int64),
    }


def image_logits(
    model: torch.nn.Module, processor: ImageProcessor, rows: Rows, advance: Callable[[int], None], batch_size: int
) -> tuple[FloatArray, list[list[int]]]:
    """Compute logits and a digest of each row's pixels, in the order of the rows.

    The logits are float32 [rows, labels]. The model is set to eval mode.
    """
    model.eval()
    device = next(model.parameters()).device
    parts, seen = [], []
    for start in range(0, len(rows), batch_size):
        batch = processor.encode(rows.texts[start : start + batch_size])
        with torch.inference_mode():
            values = torch.from_numpy(np.stack([one.values for one in batch])).to(device)
            parts.append(model(pixel_values=values).logits.float().cpu().numpy())
        seen += [one.identity for one in batch]
        advance(len(batch))
    return np.concatenate(parts), seen
