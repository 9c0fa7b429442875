"""The order of labels: that of the numbers where all are whole numbers, else of the letters."""

import re
from collections.abc import Iterable

NUMBER = re.compile(r"-?[0-9]{1,18}")


def label_order(labels: Iterable[str]) -> list[str]:
    """The labels as a model numbers them."""
    found = set(labels)
    numeric = all(NUMBER.fullmatch(label) for label in found)
    return sorted(found, key=lambda label: (int(label) if numeric else 0, label))
