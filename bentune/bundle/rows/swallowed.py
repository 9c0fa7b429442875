"""Detection of quotes that swallow rows: a field that holds line ends, with lines that are rows by themselves."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass

CONSISTENT = 0.8
"""Share of the lines of a record that must be rows. The first and the last line of a text that really has several
lines are none, so that a text of two lines stays far below."""
FEW = 20
"""Rows below which a column of labels may have each only once."""
MOST_SUSPECTS, MOST_LABELS, LABEL_CHARACTERS = 1_000, 100_000, 200


@dataclass(frozen=True, slots=True)
class Place:
    """Line that a swallowing quote opens in, and how many lines its record has."""

    number: int
    rows: int


class Swallowed:
    """Search for swallowed rows in one pass, in bounded memory.

    A line is a row where it has the header's number of fields, quotes taken as letters or as quotes, and, where there
    is a label column, a label in it that another row has. Without labels most of the records of several lines must
    look so: a text of several lines can look like rows by chance.
    """

    def __init__(self, delimiter: str, names: Sequence[str], label: str | None) -> None:
        self._delimiter, self._fields = delimiter, len(names)
        self._label = names.index(label) if label in names else None
        self._labels: set[str] = set()
        self._suspects: list[tuple[Place, list[str]]] = []
        self._single = self._several = 0

    def read(self, line: int, lines: Sequence[str], fields: Sequence[str]) -> None:
        """Look at one record, which starts at `line` and has these `lines`."""
        if len(lines) == 1:
            self._single += 1
            if self._label is not None and len(fields) == self._fields and len(self._labels) < MOST_LABELS:
                self._labels.add(fields[self._label][:LABEL_CHARACTERS])
            return
        self._several += 1
        if self._fields < 2 or len(self._suspects) == MOST_SUSPECTS:
            return
        found = [label for one in lines if (label := self._label_in(one.rstrip("\r\n"))) is not None]
        if len(found) >= CONSISTENT * len(lines):
            self._suspects.append((Place(line, len(lines)), found))

    def found(self) -> Place | None:
        """Return where the first quote that swallows rows opens."""
        # Numbers of a regression, or a key: a column whose values are not seen again tells nothing.
        unlike = self._single >= FEW and 2 * len(self._labels) > self._single
        if self._label is None or unlike:
            # A text rarely holds tabs, but two lines with a comma each are no rows yet.
            sure = [place for place, _ in self._suspects if place.rows > 2 or self._delimiter == "\t"]
            return sure[0] if 2 * len(sure) > self._several else None
        for place, labels in self._suspects:
            if sum(label in self._labels for label in labels) >= CONSISTENT * place.rows:
                return place
        return None

    def _label_in(self, line: str) -> str | None:
        """Return the label of a line that is a row ("" without a label column), None for one that is not."""
        fields = line.split(self._delimiter)
        if len(fields) != self._fields:
            try:
                fields = next(csv.reader([line], delimiter=self._delimiter, strict=True), [])
            except csv.Error:
                return None
        if len(fields) != self._fields:
            return None
        return "" if self._label is None else fields[self._label].strip('"')[:LABEL_CHARACTERS]
