"""Images as rows: processors, pixel files and augmentation."""
