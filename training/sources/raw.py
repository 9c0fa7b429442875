"""Raw rows of a source, before any check, and the columns to read."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bentune.bundle.errors import InputError
from bentune.bundle.rows.row import nearest
from training.recipe.data import ColumnNames

SLICES = "evaluate.slices or compare.slices"


@dataclass(frozen=True, slots=True)
class Raw:
    """A row before any check: `origin` names it in messages, `problem` is set when it could not be read.

    `also` has the values of the columns to slice by, `group` or `time` the value of the column to split by.
    """

    origin: str
    text: object
    text_pair: object
    label: object
    problem: str | None = None
    also: Mapping[str, object] = field(default_factory=dict)
    group: object = None
    time: object = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Columns to read: the recipe's columns, and in `also` the columns to slice by."""

    names: ColumnNames
    also: Sequence[str] = ()
    group: str | None = None
    time: str | None = None

    @property
    def all(self) -> list[str]:
        """Return the columns' names in the source, each once."""
        names = (self.names.text, self.names.text_pair, self.names.label, self.group, self.time, *self.also)
        return list(dict.fromkeys(name for name in names if name))

    @property
    def keyed(self) -> list[tuple[str, str]]:
        """Return each column after the recipe's key that names it."""
        names = {f"data.columns.{key}": name for key, name in self.names.model_dump(exclude={"image"}).items()}
        names |= {"data.split.group": self.group, "data.split.time": self.time}
        return [
            *((key, name) for key, name in names.items() if name),
            *((SLICES, name) for name in self.also),
        ]


@dataclass(frozen=True, slots=True)
class Source:
    """Rows that can be read more than once; `digest` changes when the rows change."""

    name: str
    digest: str
    read: Callable[[], Iterator[Raw]]


def raw_row(origin: str, values: Mapping[str, Any], wanted: Wanted) -> Raw:
    """Return the wanted columns of one row; a missing one is None."""
    names = wanted.names
    pair = values.get(names.text_pair) if names.text_pair else None
    also = {name: values.get(name) for name in wanted.also}
    group = values.get(wanted.group) if wanted.group else None
    time = values.get(wanted.time) if wanted.time else None
    return Raw(origin, values.get(names.text), pair, values.get(names.label), also=also, group=group, time=time)


def require_columns(wanted: Wanted, present: Sequence[str], where: Path | str) -> None:
    """Raise InputError for a wanted column that is not `present`.

    The message names the nearest column that is present.
    """
    for key, name in wanted.keyed:
        if name not in present:
            raise InputError(f"{key}: {where} has no column {name!r}; {nearest(name, present)}")
