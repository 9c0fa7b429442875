"""Labels that look alike: equal but for case, blanks, invisible characters or the spelling of a number."""

import re
import unicodedata
from collections.abc import Iterable

NUMBER = re.compile(r"[+-]?[0-9]{1,15}(\.[0-9]{1,15})?")
MISSING = frozenset({"nan", "none", "null", "n/a", "na", "nil", "#n/a", "-", "?"})
"""Words that programs write where there is no value, in lower case."""


def alike(label: str) -> str:
    """Return what labels that look alike have in common.

    It is the label in NFKC and lower case, without invisible characters, with single blanks, and a number without zeros
    that say nothing: "5.0" and "5", "Good" and "good\u200b" are alike.
    """
    visible = "".join(letter for letter in unicodedata.normalize("NFKC", label) if unicodedata.category(letter) != "Cf")
    plain = " ".join(visible.casefold().split())
    return f"{float(plain):.15g}" if NUMBER.fullmatch(plain) else unicodedata.normalize("NFC", plain)


def groups_alike(labels: Iterable[str]) -> list[list[str]]:
    """Return the labels that look alike, in groups of two or more, in the order of the labels."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault(alike(label), []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def missing_values(labels: Iterable[str]) -> list[str]:
    """Return the labels that programs write where there is no value."""
    return [label for label in labels if alike(label) in MISSING]
