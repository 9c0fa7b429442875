"""Guess of a file's encoding from its bytes. It goes into advice only: no file is read by a guess."""

import codecs
import re

SAMPLE_BYTES = 200_000
ALONE = 0.5
"""Share of the bytes above 127 that stand alone, from which on a text is taken for a Western one: its accents, quotes
and euro signs are single, where the letters of other scripts come in pairs of bytes or in words."""
MOST = 3
MOST_ZEROS = 0.3
WRONG = re.compile("[\x80-\x9f\ufffd]")
MOST_WRONG, FEW_WRONG = 0.01, 2
WHERE = "(data.encoding in a recipe, --encoding for `bentune predict`)"
_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def guessed(data: bytes) -> list[str]:
    """Return at most MOST encodings that the bytes may be of, the likeliest first; none where nothing fits."""
    for mark, name in _BOMS:
        if data.startswith(mark):
            return [name]
    data = data.removeprefix(codecs.BOM_UTF8)
    for name, zeros in (("utf-16-le", data[1::2]), ("utf-16-be", data[0::2])):
        if zeros.count(0) > MOST_ZEROS * len(zeros):  # letters of Western texts, in UTF-16 without a mark
            return [name]
    try:
        from charset_normalizer import from_bytes
    except ImportError:  # it comes with bentoml's own clients; without it there is no advice
        return []
    western = [name for name in ("cp1252",) if _alone(data) >= ALONE and _decodes(data, name)]
    # Without cp1252: for English with curly quotes and euro signs it is certain of cp852, for which they are letters.
    best = [match.encoding for match in from_bytes(data, explain=False) if match.encoding not in ("utf_8", "ascii")]
    return list(dict.fromkeys([*western, *map(_usual, best)]))[:MOST]


def advice(data: bytes) -> str:
    """Return, in words, what to do with a file that is not UTF-8."""
    names = guessed(data)
    if not names:
        return f"give its encoding {WHERE}, or convert the file to UTF-8"
    others = f" (or {' or '.join(names[1:])})" if len(names) > 1 else ""
    return (
        f"it may be {names[0]}{others}: give the encoding {WHERE} and look at the rows that are shown then, or convert "
        "the file to UTF-8"
    )


def wrongly_decoded(text: object) -> bool:
    """Return True for a text with control characters that no text has, or with the sign for what was not decoded."""
    return isinstance(text, str) and not text.isascii() and WRONG.search(text) is not None


def too_many_wrong(wrong: int, rows: int) -> bool:
    """Return True where more than a few of the rows are wrongly decoded: more than two, and than one in a hundred."""
    return wrong > max(FEW_WRONG, MOST_WRONG * rows)


def _alone(data: bytes) -> float:
    """Return the share of bytes above 127 whose neighbours are not."""
    high = [byte > 127 for byte in data]
    total = sum(high)
    alone = sum(
        here and not before and not after
        for before, here, after in zip([False, *high[:-1]], high, [*high[1:], False], strict=True)
    )
    return alone / total if total else 0.0


def _decodes(data: bytes, name: str) -> bool:
    try:
        data.decode(name)
    except UnicodeDecodeError:
        return False
    return True


def _usual(name: str) -> str:
    """Return the encoding that is a superset in practice: what Windows writes, and GBK's successor."""
    return {"latin_1": "cp1252", "gb2312": "gb18030", "gbk": "gb18030", "big5hkscs": "big5hkscs"}.get(name, name)
