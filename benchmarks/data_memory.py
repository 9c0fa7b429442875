"""Benchmark of the data stage on 650,000 rows, the size of yelp_review_full: seconds and peak memory."""

import csv
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import computed_field
from rich.table import Table

from benchmarks.command import Command, json_option, say, show
from benchmarks.process.peak import peak_of
from rollout.load.bench import ReportModel

ROWS = 650_000
LABELS = 5
MEAN_WORDS = 130
VOCABULARY = 60_000
EXACT_EVERY, NEAR_EVERY = 50, 25
CHUNK = 10_000
MOST_MB = 1500


class Measured(ReportModel):
    """One run of `bentune data`; `peak_mb` is the peak resident memory of its process, in 10^6 bytes."""

    form: str
    rows: int
    file_mb: float
    seconds: float
    peak_mb: float
    kept: int
    left_out: dict[str, int]


class DataMemory(ReportModel):
    """All runs."""

    runs: list[Measured]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def bounded(self) -> bool:
        """True if no run needed more than MOST_MB."""
        return all(run.peak_mb <= MOST_MB for run in self.runs)


def reviews(rows: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Generate (text, label) rows like those of yelp_review_full.

    Words follow Zipf's law and lengths are log-normal. One row in NEAR_EVERY repeats an earlier row with one word
    changed, or unchanged for one row in EXACT_EVERY.
    """
    generator = np.random.default_rng(seed)
    words = np.array(
        [f"{chr(97 + number % 26)}{np.base_repr(number + 36**3, 36).lower()}" for number in range(VOCABULARY)]
    )
    weights = 1 / np.arange(1, VOCABULARY + 1)
    bounds = np.cumsum(weights / weights.sum())
    spread = 0.75
    earlier: list[tuple[list[str], str]] = []
    for number in range(rows):
        if earlier and number % NEAR_EVERY == 1:
            text, label = earlier[generator.integers(len(earlier))]
            if number % EXACT_EVERY != 1:
                text = [*text]
                text[generator.integers(len(text))] = "changed"
        else:
            length = int(np.clip(generator.lognormal(np.log(MEAN_WORDS) - spread**2 / 2, spread), 5, 1000))
            text = words[np.searchsorted(bounds, generator.random(length)).clip(0, VOCABULARY - 1)].tolist()
            label = f"{generator.integers(LABELS) + 1} stars"
        if len(earlier) < CHUNK:
            earlier.append((text, label))
        yield " ".join(text), label


def write_reviews(path: Path, rows: int, seed: int = 0) -> Path:
    """Write `reviews` as Parquet or CSV, by the suffix, one chunk in memory at a time."""
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("text", "label"))
            writer.writerows(reviews(rows, seed))
        return path
    schema = pa.schema([("text", pa.string()), ("label", pa.string())])
    # In row groups of the size in the hub's files.
    with pq.ParquetWriter(path, schema) as writer:
        chunk: list[tuple[str, str]] = []
        for row in reviews(rows, seed):
            chunk.append(row)
            if len(chunk) == 10 * CHUNK:
                writer.write_table(_table(chunk, schema))
                chunk = []
        if chunk:
            writer.write_table(_table(chunk, schema))
    return path


def _table(rows: list[tuple[str, str]], schema: pa.Schema) -> pa.Table:
    texts, labels = zip(*rows, strict=True)
    return pa.table({"text": list(texts), "label": list(labels)}, schema)


def measure(source: Path, rows: int, work: Path, *overrides: str) -> Measured:
    """Run `bentune data` on this file in its own process.

    Raises BentuneError when it fails.
    """
    summary, seconds, peak_mb = watched("data", recipe_for(source, work), work, *overrides)
    return Measured(
        form=source.suffix[1:],
        rows=rows,
        file_mb=source.stat().st_size / 1e6,
        seconds=seconds,
        peak_mb=peak_mb,
        kept=sum(summary["rows"].values()),
        left_out={reason: dropped["rows"] for reason, dropped in summary["dropped"].items()},
    )


def recipe_for(source: Path, work: Path) -> Path:
    """Write a recipe that reads this file."""
    recipe = work / f"{source.suffix[1:]}.yaml"
    recipe.write_text(f"task: text-classification\nmodel: none\ndata: {{source: {source}}}\n", encoding="utf-8")
    return recipe


def watched(
    stage: str, recipe: Path, work: Path, *overrides: str, new: bool = True
) -> tuple[dict[str, Any], float, float]:
    """Run a stage in its own process and return its summary, seconds and peak memory.

    The peak is in 10^6 bytes. Raises BentuneError when it fails.
    """
    command = [sys.executable, "-m", "bentune", stage, str(recipe), "--runs", str(work / "runs"), "--json"]
    command += ["--new"] if new else []
    command += [part for override in overrides for part in ("--set", override)]
    start = time.monotonic()
    peak_mb, output = peak_of(command)
    seconds = time.monotonic() - start
    return json.loads(output)["summary"], seconds, peak_mb


def table_of(found: DataMemory) -> Table:
    """Return the table with a row for each run."""
    table = Table("file", "rows", "MB", "seconds", "peak MB", "kept", "left out")
    for run in found.runs:
        left_out = ", ".join(f"{rows} {reason}" for reason, rows in run.left_out.items())
        numbers = (f"{run.rows:,}", f"{run.file_mb:.0f}", f"{run.seconds:.0f}", f"{run.peak_mb:.0f}", f"{run.kept:,}")
        table.add_row(run.form, *numbers, left_out)
    return table


@click.command(cls=Command)
@click.option("--rows", default=ROWS, show_default=True, type=click.IntRange(10), help="Number of rows.")
@click.option(
    "--form", "forms", multiple=True, default=("parquet", "csv"), show_default=True, help="Format of the file."
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a value of the recipe.")
@click.option("--work", type=click.Path(path_type=Path, file_okay=False), help="Parent of the temporary directory.")
@json_option
def main(
    rows: int, forms: tuple[str, ...], overrides: tuple[str, ...], work: Path | None, json_path: Path | None
) -> None:
    """Prepare generated reviews as `bentune data` does.

    Exit code 1 if that takes more than 1500 MB.
    """
    with tempfile.TemporaryDirectory(dir=work) as name:
        runs = []
        for form in forms:
            say(f"writing {rows:,} rows as {form}")
            source = write_reviews(Path(name) / f"reviews.{form}", rows)
            say(f"preparing {source.stat().st_size / 1e6:.0f} MB")
            runs.append(measure(source, rows, Path(name), *overrides))
            source.unlink()
    found = DataMemory(runs=runs)
    show(found, table_of(found), json_path)
    raise SystemExit(0 if found.bounded else 1)


if __name__ == "__main__":
    main()
