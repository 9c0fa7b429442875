"""data/report.json: what the data stage tells people about the rows, short pieces of texts included."""

from typing import Literal

from pydantic import Field

from bentune.bundle.files import Frozen

Effect = Literal["fixed", "found", "left out"]
REPORT = "report.json"
SAMPLES = 5
SHOWN_CHARACTERS = 160


class RowChange(Frozen):
    """A row that a cleaning rule changed, found or left out: `after` is None where the text stayed as it was.

    `before` and `after` are the piece of the text around the first difference, at most SHOWN_CHARACTERS characters.
    """

    origin: str
    before: str = Field(max_length=SHOWN_CHARACTERS)
    after: str | None = Field(default=None, max_length=SHOWN_CHARACTERS)


class CleaningRule(Frozen):
    """One rule of `data.clean`, or a reason for which a row cannot be used.

    `fixed`: the texts were changed. `found`: they were counted and stayed as they are. `left out`: the rows were.
    """

    rule: str
    effect: Effect
    rows: int = Field(ge=0)
    samples: list[RowChange] = Field(max_length=SAMPLES)


class RowExcerpt(Frozen):
    """One row of a pair: where it is, its label, the beginning of its text."""

    origin: str
    label: str
    text: str = Field(max_length=SHOWN_CHARACTERS)


class Pair(Frozen):
    """Two rows that are the same or nearly; `similarity` is the Jaccard index of their word shingles, estimated.

    It is 1 where the texts are the same but for case and blanks.
    """

    kept: RowExcerpt
    other: RowExcerpt
    similarity: float = Field(ge=0, le=1)


class Duplicates(Frozen):
    """Rows that were left out because a row of `part` that is kept has the same text or nearly the same.

    `part` is the side of the split that the kept row is on: what is left out for a row of `test` would otherwise have
    leaked into training. It is None where the kept row is on no side, because data.rows left it out. They are not
    `removed` if the recipe only wants to see them.
    """

    kind: Literal["exact", "near"]
    part: str | None
    removed: bool = True
    rows: int = Field(ge=0)
    samples: list[Pair] = Field(max_length=SAMPLES)


class Contradictions(Frozen):
    """Rows with the same text or nearly and another label, side by side; of exact ones `other` was left out."""

    kind: Literal["exact", "near"]
    rows: int = Field(ge=0)
    samples: list[Pair] = Field(max_length=SAMPLES)


class Lengths(Frozen):
    """Histogram of one part: `counts` has one number for each bin of the report's edges, the last bin open above."""

    counts: list[int]
    smallest: int
    median: float
    p95: float
    largest: int


class SplitPart(Frozen):
    """One side of the split: how many rows, of which labels, how long in characters and words (split at blanks)."""

    rows: int = Field(ge=0)
    labels: dict[str, int]
    characters: Lengths
    words: Lengths


class SplitReport(Frozen):
    """How rows were held out.

    `label`: a share of each label. `group`: no value of `column` is on two sides. `time`: the newest by `column`;
    `held_out_from` is the first time held out, as it stands in ISO format or as a number. `hub`: the hub's own split.
    `continued` says that a parent's rows kept their side, and that only new rows were split so.
    """

    kind: Literal["label", "group", "time", "hub"]
    seed: int
    test: float | str
    validation: float
    column: str | None = None
    groups: int | None = Field(default=None, description="how many groups there are")
    held_out_from: str | None = None
    continued: bool = False


class SourceRows(Frozen):
    """One source and how many rows it has, good and bad."""

    name: str
    rows: int = Field(ge=0)


class DataReport(Frozen):
    """All that is known about the rows; `character_edges` and `word_edges` are the lower bounds of the bins."""

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


def shown(text: str) -> str:
    """The beginning of a text on one line, for people."""
    if text.startswith("data:image/"):
        return text.partition(",")[0]
    line = " ".join(_whole(text[: 4 * SHOWN_CHARACTERS]).split())
    return line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 1] + "…"


def difference(before: str, after: str) -> tuple[str, str]:
    """Both texts from a little before their first difference on, so that what a rule did is seen at once."""
    same = next((place for place, (one, other) in enumerate(zip(before, after, strict=False)) if one != other), None)
    start = max(0, (min(len(before), len(after)) if same is None else same) - SHOWN_CHARACTERS // 4)
    mark = "…" if start else ""
    one, other = (mark + _whole(text[start : start + SHOWN_CHARACTERS - 1]) for text in (before, after))
    return one, other


def _whole(text: str) -> str:
    """The text with a question mark for half of a surrogate pair, which no file can hold."""
    return text.encode("utf-8", "replace").decode()
