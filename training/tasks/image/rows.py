"""Images as torch sees them: decoded when they are asked for, so that only a batch of them is in memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from service.tasks.images import FloatArray, pixel_values
from training.recipe.rows_settings import AugmentSettings
from training.tasks.image.augment import augmented
from training.tasks.image.processor import ImageProcessor
from training.tasks.rows import Rows


@dataclass
class ImageRows(Dataset):  # type: ignore[type-arg]  # of dicts
    """Rows of which each is `pixel_values`, float32 [3, height, width], and `labels`.

    With `augment` every epoch sees another view of each; the same seed, epoch and row have the same.
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
        # The same as the model's own gives, which was checked when it was loaded, in a quarter of the time.
        values = pixel_values(image, self.processor.settings)
        return {"pixel_values": values, "labels": int(self.rows.labels[row])}

    def augmented(self, settings: AugmentSettings, seed: int) -> "ImageRows":
        """The same rows, to be trained on: for those that measure a model it is never called."""
        return replace(self, augment=settings, seed=seed) if settings.changes_images else self

    @property
    def lengths(self) -> list[int]:
        """What each costs: all the same."""
        return [self.processor.limits.max_tokens] * len(self)


def collated(rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """A batch: `pixel_values`, float32 [rows, 3, height, width], and `labels`, int64 [rows]."""
    return {
        "pixel_values": torch.from_numpy(np.stack([row["pixel_values"] for row in rows])),
        "labels": torch.tensor([row["labels"] for row in rows], dtype=torch.int64),
    }


def image_logits(
    model: torch.nn.Module, processor: ImageProcessor, rows: Rows, advance: Callable[[int], None], batch_size: int
) -> tuple[FloatArray, list[list[int]]]:
    """Logits, float32 [rows, labels], in the order of the rows, and for each what stands for its pixel values.

    The model is put into eval mode.
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
