"""Image rows: processors, datasets and augmentation."""
