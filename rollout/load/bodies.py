"""Requests of a load from real texts, so that their mix of lengths is realistic."""

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median_low

from bentune.bundle.errors import InputError
from bentune.bundle.manifest import GoldenRow
from bentune.bundle.rows.read import read_rows
from bentune.bundle.rows.row import text_of
from rollout.load.generator import Body

Text = tuple[str, str | None]

MAX_TEXTS = 20_000
"""Most texts kept of a file, a uniform sample: more would not change the mix of lengths."""


def texts_of_file(path: Path, text_column: str, pair_column: str | None, seed: int) -> list[Text]:
    """Read at most MAX_TEXTS texts or pairs of a file.

    Raises InputError as `bentune.bundle.rows` does.
    """
    generator = random.Random(seed)  # noqa: S311 (draws rows, keeps no secret)
    kept: list[Text] = []
    for row in read_rows(path):
        pair = None if pair_column is None else text_of(row, pair_column, path)
        text = (text_of(row, text_column, path), pair)
        if len(kept) < MAX_TEXTS:
            kept.append(text)
        elif (place := generator.randrange(row.number + 1)) < MAX_TEXTS:
            kept[place] = text
    return kept


def inputs_of_golden(rows: Iterable[GoldenRow]) -> list[Text]:
    """Return the texts of a bundle's golden rows."""
    return [(row.text, row.text_pair) for row in rows]


def bodies_of(texts: Sequence[Text], *, batch: int, seed: int) -> list[Body]:
    """Build requests of `batch` texts each, in an order drawn by `seed`.

    Each text is in at least one request. Where requests differ in length, the shorter and the longer half form two
    groups. Raises InputError without texts.
    """
    if not texts:
        raise InputError("there are no texts to send: give --input a file with rows")
    shuffled = list(texts)
    random.Random(seed).shuffle(shuffled)  # noqa: S311 (an order, no secret)
    # The last request is filled up with the first texts: a smaller one would not be comparable.
    shuffled += [shuffled[n % len(shuffled)] for n in range(-len(shuffled) % batch)]
    parts = [shuffled[start : start + batch] for start in range(0, len(shuffled), batch)]
    lengths = [sum(len(text) + len(pair or "") for text, pair in part) for part in parts]
    middle = median_low(lengths)
    mixed = max(lengths) > middle
    return [
        Body(_json(part), len(part), ("shorter half" if length <= middle else "longer half") if mixed else "")
        for part, length in zip(parts, lengths, strict=True)
    ]


def _json(part: Sequence[Text]) -> bytes:
    items = [text if pair is None else [text, pair] for text, pair in part]
    single = len(items) == 1 and isinstance(items[0], str)
    return json.dumps({"inputs": items[0] if single else items, "truncate": True}, ensure_ascii=False).encode()
