"""Text rows: tokenized files and augmentation."""
