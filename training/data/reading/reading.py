"""Reading of the sources into the pool: each row is cleaned and checked, and invalid rows are left out."""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from functools import partial
from pathlib import Path
from typing import Literal

from rich.markup import escape

from bentune.bundle.errors import InputError
from bentune.bundle.rows.csv_rows import WITHOUT_QUOTES
from bentune.bundle.rows.encodings import too_many_wrong, wrongly_decoded
from bentune.bundle.seen_rows import row_key
from training.data.reading.cleaning import clean
from training.data.reading.pool import CHUNK_ROWS, CheckedRow, Pool, PoolWriter
from training.data.report import SAMPLES, CleaningRule, Effect, RowChange, difference, shown
from training.pipeline.stage import Reporter
from training.recipe.data import DataSettings, label_text
from training.sources.raw import Raw, Source
from training.tasks.targets.target import TrainingTarget
from training.tasks.task import Task

MOST_CHARACTERS = 100
SHOWN_BAD_ROWS = 10
SURROGATE = re.compile("[\ud800-\udfff]")
PLACE = re.compile(r"[:;,(]| at ")
"""Start of the particulars of one row in a reader's message."""
SAMPLE_CHARACTERS, DECODED_SAMPLES = 60, 3
IN_BRACKETS = re.compile(r" \([^()]*\)$")
NUMBER = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?")
TimeKind = Literal["date", "number"]


@dataclass(slots=True)
class Tally:
    """Counts and samples of cleaning by rule and effect, in the order of first occurrence."""

    rules: dict[tuple[str, Effect], int] = field(default_factory=dict)
    samples: dict[tuple[str, Effect], list[RowChange]] = field(default_factory=dict)

    def changed(self, rule: str, origin: str, before: str, after: str, *, fixed: bool) -> None:
        """Count a rule's match in a text; with `fixed` the rule changed the text."""
        effect: Effect = "fixed" if fixed else "found"
        if self._count(rule, effect):
            piece, mended = difference(before, after)
            self.samples[rule, effect].append(RowChange(origin=origin, before=piece, after=mended))

    def left_out(self, reason: str, origin: str, text: object) -> None:
        """Count a row that was left out."""
        if self._count(reason, "left out"):
            piece = shown(text) if isinstance(text, str) else ""
            self.samples[reason, "left out"].append(RowChange(origin=origin, before=piece))

    def report(self) -> Iterator[CleaningRule]:
        """Yield an entry per rule, those that leave rows out last."""
        for rule, effect in sorted(self.rules, key=lambda place: place[1] == "left out"):
            samples = self.samples[rule, effect]
            yield CleaningRule(rule=rule, effect=effect, rows=self.rules[rule, effect], samples=samples)

    def _count(self, rule: str, effect: Effect) -> bool:
        """Count one occurrence; return True while it has fewer than SAMPLES samples."""
        self.rules[rule, effect] = self.rules.get((rule, effect), 0) + 1
        return len(self.samples.setdefault((rule, effect), [])) < SAMPLES


def parse_time(value: object) -> tuple[TimeKind, float]:
    """Parse a time to split by; return its kind, and a number that grows with it.

    For a date the number is seconds since 1970; a date without a zone is in UTC. Raises ValueError when the value is
    neither an ISO date nor a finite number.
    """
    try:
        match value:
            case bool():
                raise ValueError("a boolean is no time")
            case int() | float():
                number = float(value)
            case str() if NUMBER.fullmatch(value.strip()):
                number = float(value)
            case str():
                return "date", _seconds(datetime.fromisoformat(value.strip()))
            case datetime():
                return "date", _seconds(value)
            case date():
                return "date", _seconds(datetime.combine(value, time()))
            case _:
                raise ValueError(f"{type(value).__name__} is no time")
    except OverflowError as error:
        raise ValueError(str(error)) from error
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return "number", number


def time_text(kind: TimeKind, number: float) -> str:
    """Format a time: a date in ISO format and UTC, or the number."""
    return datetime.fromtimestamp(number, UTC).isoformat() if kind == "date" else f"{number:.15g}"


def _seconds(moment: datetime) -> float:
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


@dataclass(slots=True)
class Reading:
    """Result of reading: the pool, a tally per source, and the labels before `data.labels` renamed them."""

    pool: Pool
    tallies: list[Tally]
    given_labels: set[str]
    rows_read: list[int]
    time_kind: TimeKind


class _BadRow(Exception):
    """Invalid row; the message is the reason."""


class _LeftOut(Exception):
    """Row that a rule of data.clean leaves out; the message is the reason."""


@dataclass(slots=True)
class _Reader:
    """Converter of raw rows to checked ones."""

    data: DataSettings
    task: Task
    target: TrainingTarget
    given_labels: set[str] = field(default_factory=set)
    time_kind: TimeKind | None = None
    wrong: int = 0
    decoded: list[str] = field(default_factory=list)

    def checked(self, raw: Raw, number: int, tally: Tally) -> CheckedRow:
        """Check and clean a row. Raises _BadRow, _LeftOut."""
        data, names = self.data, self.data.columns
        if raw.problem:
            raise _BadRow(raw.problem)
        try:
            found = self.task.read(raw, names, partial(self._text, origin=raw.origin, tally=tally))
        except ValueError as problem:
            raise _BadRow(str(problem)) from None
        label = self._label(raw.label)
        group = _group(data.split.group, raw.group) if data.split.group else None
        time = self._time(data.split.time, raw.time) if data.split.time else None
        also = json.dumps({name: _scalar(value) for name, value in raw.also.items()}) if raw.also else None
        return CheckedRow(
            text=found.text,
            text_pair=found.text_pair,
            label=label,
            origin=raw.origin,
            also=also,
            key=row_key_with_label(found.content, found.text_pair or "", label),
            # Without the label: else the same text could be in the training set and in the test set.
            text_key=row_key(found.content, found.text_pair),
            source=number,
            group=group,
            time=time,
        )

    def _label(self, given: object) -> str:
        """Return the row's label, or all its labels, as one text."""
        try:
            label, names = self.target.read(given)
        except ValueError as problem:
            raise _BadRow(f"column {self.data.columns.label!r} {problem}") from None
        self.given_labels |= names
        return label

    def _text(self, column: str, given: object, *, origin: str, tally: Tally) -> str:
        if not isinstance(given, str):
            raise _BadRow(f"column {column!r} is not a text ({type(given).__name__})")
        # Blanks around a text stay: the service keeps them too, and they change the tokens of some tokenizers.
        text = given
        if not text.strip():
            raise _BadRow(f"column {column!r} is empty")
        if SURROGATE.search(text):
            raise _BadRow(f"column {column!r} holds half of a surrogate pair")
        self._look_at(text)
        rules = self.data.clean
        # Before the rules, which may be slow on huge texts.
        if rules.max_characters is not None and len(text) > rules.max_characters:
            raise _LeftOut(f"column {column!r} has more than {rules.max_characters} characters")
        text, found = clean(text, rules)
        for rule, before, after in found:
            tally.changed(rule, origin, before, after, fixed=rules.fixes[rule])
        if not text.strip():
            raise _LeftOut(f"nothing is left of column {column!r} after cleaning")
        if rules.min_characters is not None and len(text) < rules.min_characters:
            raise _LeftOut(f"column {column!r} has fewer than {rules.min_characters} characters")
        return text

    def _look_at(self, text: str) -> None:
        """Count a text that looks wrongly decoded, and keep pieces of the first that show the encoding."""
        if text.isascii():
            return
        self.wrong += wrongly_decoded(text)
        if len(self.decoded) < DECODED_SAMPLES:
            first = next(place for place, letter in enumerate(text) if not letter.isascii())
            self.decoded.append(text[max(0, first - SAMPLE_CHARACTERS // 2) :][:SAMPLE_CHARACTERS])

    def _time(self, column: str, given: object) -> float:
        try:
            kind, number = parse_time(given)
        except ValueError:
            raise _BadRow(
                f"column {column!r} is neither an ISO date like 2026-05-31 nor a number ({type(given).__name__})"
            ) from None
        self.time_kind = self.time_kind or kind
        if kind != self.time_kind:
            raise _BadRow(f"column {column!r} is a {kind} here and a {self.time_kind} before")
        return number


def read_sources(sources: Sequence[Source], data: DataSettings, task: Task, file: Path, report: Reporter) -> Reading:
    """Read all rows, and write their texts, or images as data URLs, to `file`.

    Raises InputError for invalid rows, unless data.invalid_rows is `drop`.
    """
    target = task.target(data)
    reader, tallies = _Reader(data, task, target), [Tally() for _ in sources]
    rows_read = [0] * len(sources)
    writing = PoolWriter(file, target, task.rows_at_once)
    with writing as writer, report.task("reading rows", None) as advance:
        for number, source in enumerate(sources):
            for row in _usable(source, number, reader, tallies[number], rows_read):
                writer.add(row)
                if len(writer) % CHUNK_ROWS == 0:
                    advance(CHUNK_ROWS)
        advance(len(writer) % CHUNK_ROWS)
        pool = writer.close()
    _require_decoded(reader, sum(rows_read), [source.name for source in sources])
    if data.encoding is not None:
        report.say(
            escape(f"read as {data.encoding}, for example: {' | '.join(map(shown, reader.decoded)) or 'only ASCII'}")
        )
    return Reading(pool, tallies, reader.given_labels, rows_read, reader.time_kind or "number")


def _usable(source: Source, number: int, reader: _Reader, tally: Tally, rows_read: list[int]) -> Iterator[CheckedRow]:
    bad: list[str] = []
    count = 0
    for raw in source.read():
        rows_read[number] += 1
        try:
            row = reader.checked(raw, number, tally)
        except _LeftOut as left_out:
            tally.left_out(str(left_out), raw.origin, raw.text)
        except _BadRow as problem:
            tally.left_out(_kind(raw, str(problem)), raw.origin, raw.text)
            if reader.data.invalid_rows == "error":
                count += 1
                if len(bad) < SHOWN_BAD_ROWS:
                    # What to do is said once, with the first.
                    said = str(problem) if not bad or raw.problem is None else raw.problem.partition(";")[0]
                    bad.append(f"{raw.origin}: {said}")
        else:
            if not bad:
                yield row
    if count == 1:
        raise InputError(f"{source.name}, {bad[0]}; fix the row, or set data.invalid_rows to drop")
    if bad:
        shown = f"the first {len(bad)} of {count:,} invalid rows" if count > len(bad) else f"{count} invalid rows"
        raise InputError(
            f"{source.name}: {shown}:\n"
            + "".join(f"  {line}\n" for line in bad)
            + (f"give {WITHOUT_QUOTES}, " if WITHOUT_QUOTES in bad[0] else "")
            + "fix them, or set data.invalid_rows to drop"
        )


def _kind(raw: Raw, problem: str) -> str:
    """Return the kind of a problem, under which rows are counted, without places in the file."""
    if raw.problem is not None:
        return PLACE.split(problem, maxsplit=1)[0].strip()
    return IN_BRACKETS.sub("", problem)


def _require_decoded(reader: _Reader, rows: int, sources: Sequence[str]) -> None:
    """Raise InputError where more than a few texts look wrongly decoded, and no rule fixes them."""
    rules = reader.data.clean
    fixed = {"fix", "off"} & {rules.control_characters, rules.mojibake}
    if fixed or not too_many_wrong(reader.wrong, rows):
        return
    how = (
        f"read as {reader.data.encoding}: give another data.encoding"
        if reader.data.encoding is not None
        else "in UTF-8: they were decoded wrongly when the file was made; read the original with data.encoding, or set "
        "data.clean.mojibake to fix"
    )
    raise InputError(
        f"{', '.join(sources[:1])}: {reader.wrong:,} of {rows:,} rows hold control characters "
        f"(U+0080 to U+009F) or U+FFFD, {how}"
    )


def row_key_with_label(*parts: str) -> bytes:
    """Hash the texts and the label of a row, as they are written, to 16 bytes."""
    return hashlib.sha256(json.dumps(parts).encode()).digest()[:16]


def _group(column: str, given: object) -> int:
    """Hash the group's name to 64 bits, because each row may have a group of its own."""
    empty = given is None or (isinstance(given, float) and not math.isfinite(given))
    if empty or isinstance(given, list | dict) or not (name := label_text(given)):
        raise _BadRow(f"column {column!r} has no group ({type(given).__name__})")
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def _scalar(value: object) -> str | int | float | bool | None:
    """Convert a value to slice by to a JSON scalar."""
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return None if isinstance(value, float) else SURROGATE.sub("\ufffd", str(value)[:MOST_CHARACTERS])
