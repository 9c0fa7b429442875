"""Labels of a multi-label row: parsed from a list or a text, and written as one text."""

import json
import math
from collections.abc import Iterable

from bentune.bundle.targets.target import NO_LABEL


def labels_of(given: object, separator: str | None = None) -> list[str]:
    """Return the labels of one row, sorted, each once; none of an empty list or text.

    `given` is a list of texts or numbers, the JSON of such a list, or with a `separator` a text that it splits. 5, 5.0
    and "5" are one label. Raises ValueError, which names the problem without repeating a value of the row.
    """
    if isinstance(given, str):
        given = _in_text(given.strip(), separator)
    if not isinstance(given, list | tuple):
        raise ValueError(f"is not a list of labels ({type(given).__name__}); write [] where a row has none")
    return sorted({_name(one) for one in given})


def spelled(labels: Iterable[str]) -> str:
    """Write the labels of a row as a JSON list, equal for equal sets of labels."""
    return json.dumps(sorted(set(labels)), ensure_ascii=False)


def labels_in(text: str) -> list[str]:
    """Return the labels in a text that `spelled` returned."""
    found: list[str] = json.loads(text)
    return found


def _in_text(text: str, separator: str | None) -> object:
    if not text:
        return []
    if separator is not None:
        return [name for name in text.split(separator) if name.strip()]
    if not text.startswith("["):
        raise ValueError('is a text: write a JSON list, as ["one", "other"], or set data.label_separator')
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("begins with [ and is no JSON list") from None


def _name(given: object) -> str:
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise ValueError(f"has a label that is neither a text nor a number ({type(given).__name__})")
    if isinstance(given, float) and not math.isfinite(given):
        raise ValueError(f"has a label that is no number ({given})")
    name = str(int(given)) if isinstance(given, float) and given.is_integer() else str(given).strip()
    if not name:
        raise ValueError("has a label without a name")
    if name == NO_LABEL:
        raise ValueError(f"has the label {NO_LABEL}, under which rows without a label are counted: rename it")
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise ValueError("holds half of a surrogate pair")
    return name
