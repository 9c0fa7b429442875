"""A hub data set as it lies on a disk: a card, and parquet files in a folder of its configuration."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

YELP = """---
configs:
- config_name: yelp_review_full
  data_files:
  - split: train
    path: yelp_review_full/train-*
  - split: test
    path: yelp_review_full/test-*
  default: true
dataset_info:
  config_name: yelp_review_full
  features:
  - name: label
    dtype:
      class_label:
        names:
          '0': 1 star
          '1': 2 star
          '2': 3 stars
  - name: text
    dtype: string
---
# Reviews
"""


def write_hub(path: Path, train: int = 6, test: int = 3) -> Path:
    """Write a data set in the layout of Yelp/yelp_review_full.

    It has a card with the classes, and parquet files in a folder of the configuration.
    """
    folder = path / "yelp_review_full"
    folder.mkdir(parents=True, exist_ok=True)
    (path / "README.md").write_text(YELP)
    for split, rows in (("train", train), ("test", test)):
        labels = pa.array([number % 3 for number in range(rows)], pa.int64())
        table = pa.table({"label": labels, "text": [f"{split} review {number}" for number in range(rows)]})
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return path
