"""The labels of a row that may have any number of them: read from a list or a text, and spelled as one text."""

import json
import math
from collections.abc import Iterable

from bentune.bundle.targets.target import NO_LABEL


def labels_of(given: object, separator: str | None = None) -> list[str]:
    """Return the labels of one row, sorted, each once; none of an empty list or text.

    `given` is a list of texts or numbers, the JSON of such a list, or with a `separator` names with that between them.
    5, 5.0 and "5" are one label. Raises ValueError, which says what is wrong and repeats nothing of it.
    """
    if isinstance(given, str):
        given = _in_text(given.strip(), separator)
    if not isinstance(given, list | tuple):
        raise ValueError(f"is not a list of labels ({type(given).__name__}); write [] where a row has none")
    return sorted({_name(one) for one in given})


def spelled(labels: Iterable[str]) -> str:
    """Spell the labels of a row as a JSON list, the same for the same labels."""
    return json.dumps(sorted(set(labels)), ensure_ascii=False)


def labels_in(text: str) -> list[str]:
    """Return the labels in what `spelled` gave."""
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
        raise ValueError(f"has the label {NO_LABEL}, by which rows without a label are counted: call it something else")
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise ValueError("holds half of a surrogate pair")
    return name
