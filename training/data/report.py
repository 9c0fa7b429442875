"""Schema of data/report.json, the data stage's report on the rows, with short pieces of texts."""

from typing import Literal

from pydantic import Field

from bentune.bundle.files import Frozen
from training.pipeline.results import SplitReport

Effect = Literal["fixed", "found", "left out"]
SAMPLES = 5
SHOWN_CHARACTERS = 160


class RowChange(Frozen):
    """Row that a cleaning rule changed, matched or left out; `after` is None for a row that was left out.

    `before` and `after` are the piece of the text around the first difference, at most SHOWN_CHARACTERS characters.
    """

    origin: str
    before: str = Field(max_length=SHOWN_CHARACTERS)
    after: str | None = Field(default=None, max_length=SHOWN_CHARACTERS)


class CleaningRule(Frozen):
    """Rule of `data.clean`, or a reason why rows are invalid.

    Effect `fixed`: the texts were changed; `found`: they were only counted; `left out`: the rows were left out.
    """

    rule: str
    effect: Effect
    rows: int = Field(ge=0)
    samples: list[RowChange] = Field(max_length=SAMPLES)


class RowExcerpt(Frozen):
    """One row of a pair: its origin, its label, the beginning of its text."""

    origin: str
    label: str
    text: str = Field(max_length=SHOWN_CHARACTERS)


class Pair(Frozen):
    """Two duplicate rows; `similarity` is the estimated Jaccard index of their word shingles.

    It is 1 for texts that differ in case and spaces only.
    """

    kept: RowExcerpt
    other: RowExcerpt
    similarity: float = Field(ge=0, le=1)


class Duplicates(Frozen):
    """Duplicates of the kept rows in `part`, a part of the split.

    Duplicates of a row in `test` would have leaked into training. `part` is None where data.rows left the kept rows
    out. `removed` is false if the recipe only reports near duplicates.
    """

    kind: Literal["exact", "near"]
    part: str | None
    removed: bool = True
    rows: int = Field(ge=0)
    samples: list[Pair] = Field(max_length=SAMPLES)


class Contradictions(Frozen):
    """Duplicates with different labels, side by side; `other` was left out if they are exact."""

    kind: Literal["exact", "near"]
    rows: int = Field(ge=0)
    samples: list[Pair] = Field(max_length=SAMPLES)


class Lengths(Frozen):
    """Histogram of lengths in one part: `counts` per bin of the report's edges; the last bin is open above."""

    counts: list[int]
    smallest: int
    median: float
    p95: float
    largest: int


class SplitPart(Frozen):
    """One part of the split: numbers of rows and labels, lengths in characters and words (split at spaces)."""

    rows: int = Field(ge=0)
    labels: dict[str, int]
    characters: Lengths
    words: Lengths


class SourceRows(Frozen):
    """Source and its number of rows, valid and invalid."""

    name: str
    rows: int = Field(ge=0)


class DataReport(Frozen):
    """Content of data/report.json; `character_edges` and `word_edges` are the lower bounds of the bins."""

    fingerprint: str
    sources: list[SourceRows]
    rows_read: int = Field(ge=0)
    rows_kept: int = Field(ge=0, description="rows of all parts together")
    labels: list[str]
    split: SplitReport
    parts: dict[str, SplitPart]
    character_edges: list[int]
    word_edges: list[int]
    cleaning: list[CleaningRule]
    duplicates: list[Duplicates]
    contradictions: list[Contradictions]


class DoubtfulRow(Frozen):
    """Line of doubtful.jsonl: `score` is the probability of the row's own label; the lowest scores come first.

    For multi-label rows `label` and `suggested` name all labels of a row, and `score` is cleanlab's for all of them.
    """

    split: str
    origin: str
    text: str
    label: str
    suggested: str
    score: float


def shown(text: str) -> str:
    """Shorten a text to one line."""
    if text.startswith("data:image/"):
        return text.partition(",")[0]
    line = " ".join(_whole(text[: 4 * SHOWN_CHARACTERS]).split())
    return line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 1] + "…"


def difference(before: str, after: str) -> tuple[str, str]:
    """Cut both texts to the piece around their first difference."""
    same = next((place for place, (one, other) in enumerate(zip(before, after, strict=False)) if one != other), None)
    start = max(0, (min(len(before), len(after)) if same is None else same) - SHOWN_CHARACTERS // 4)
    mark = "…" if start else ""
    one, other = (mark + _whole(text[start : start + SHOWN_CHARACTERS - 1]) for text in (before, after))
    return one, other


def _whole(text: str) -> str:
    """Replace half of a surrogate pair, which no file can hold, by a question mark."""
    return text.encode("utf-8", "replace").decode()
