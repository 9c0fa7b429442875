"""Benchmark of the tuning methods on one recipe: accuracy, time, memory, and size of the saved weights."""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.command import Command, json_option, say
from benchmarks.process.peak import peak_of
from bentune.bundle.files import write_json

VARIANTS = {
    "`full`": "full",
    "`freeze`, half of the layers": "freeze",
    "`lora`": "lora",
    "`lora`, rsLoRA": "{name: lora, rslora: true}",
    "`lora`, DoRA": "{name: lora, dora: true}",
    "`qlora`": "qlora",
    "`bias`": "bias",
    "`head`": "head",
}
LOADED = (
    "import sys; from pathlib import Path; import training.train.stage; "
    "from training.tasks.base.load import load_base, quiet; "
    "from training.recipe.file import load_recipe; quiet(); load_base(load_recipe(Path(sys.argv[1])).recipe, 'ab')"
)


@dataclass(frozen=True)
class MethodRow:
    """Result of one method: `accuracy` on the test set with its interval, `artifact_mb` of saved weights."""

    method: str
    accuracy: float
    low: float
    high: float
    trainable: int
    total: int
    learning_rate: float
    seconds: float
    peak_mb: float
    artifact_mb: float


@dataclass(frozen=True)
class MethodMeasurement:
    """Results of all methods; `loaded_mb` is the peak of a process that only loads the libraries and the base model."""

    rows: list[MethodRow]
    held_out: int
    loaded_mb: float


def measure(recipe: Path, runs: Path, overrides: list[str]) -> MethodMeasurement:
    """Train and evaluate each method on the same rows, in turn.

    Each runs in its own process. Raises BentuneError when one of them fails.
    """
    _bentune("data", recipe, runs, overrides)
    loaded, _ = peak_of([sys.executable, "-c", LOADED, str(recipe)])
    rows, held_out = [], 0
    for name, method in VARIANTS.items():
        chosen = [*overrides, f"method={method}"]
        trained, peak_mb = _bentune("train", recipe, runs, chosen)
        evaluated, _ = _bentune("evaluate", recipe, runs, chosen)
        accuracy, held_out = evaluated["summary"]["tuned"], evaluated["summary"]["rows"]
        rows.append(
            MethodRow(
                method=name,
                accuracy=accuracy["value"],
                low=accuracy["low"],
                high=accuracy["high"],
                **trained["summary"]["parameters"],
                learning_rate=trained["summary"]["learning_rate"],
                seconds=trained["seconds"],
                peak_mb=peak_mb,
                artifact_mb=sum(path.stat().st_size for path in _weights(Path(trained["directory"]))) / 1e6,
            )
        )
        say(f"{name}: accuracy {rows[-1].accuracy:.3f}, {rows[-1].seconds:.0f} s, {peak_mb:.0f} MB")
    return MethodMeasurement(rows, held_out, loaded)


def markdown(measurement: MethodMeasurement) -> str:
    """Return the table of docs/training/methods.md.

    Times are ratios to that of the first row.
    """
    lines = [
        f"| method | accuracy on {measurement.held_out} rows | trained weights | time | peak memory, MB | kept, MB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in measurement.rows:
        ratio = row.seconds / measurement.rows[0].seconds
        lines.append(
            f"| {row.method} | {row.accuracy:.3f} [{row.low:.3f}, {row.high:.3f}] | {row.trainable:,} "
            f"({row.trainable / row.total:.2%}) | {ratio:.2f} | {row.peak_mb:.0f} | {row.artifact_mb:.2f} |"
        )
    lines.append(f"\nLoading the libraries and the base takes {measurement.loaded_mb:.0f} MB of the memory.")
    return "\n".join(lines)


def _weights(directory: Path) -> Iterator[Path]:
    return directory.glob("*/*.safetensors")


def _bentune(stage: str, recipe: Path, runs: Path, overrides: list[str]) -> tuple[dict[str, Any], float]:
    """Run a stage; return its JSON and the peak memory of its process, in MB."""
    options = [word for override in overrides for word in ("--set", override)]
    command = [sys.executable, "-m", "bentune", stage, str(recipe), "--runs", str(runs), "--force", "--json", *options]
    peak_mb, output = peak_of(command)
    answer: dict[str, Any] = json.loads(output)
    return answer, peak_mb


@click.command(cls=Command)
@click.argument("recipe", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--runs", type=click.Path(path_type=Path), default=Path(".bench/methods"), help="Directory of the runs.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a value of the recipe.")
@json_option
def main(recipe: Path, runs: Path, overrides: tuple[str, ...], json_path: Path | None) -> None:
    """Train RECIPE with each method and print cost and accuracy as Markdown."""
    measurement = measure(recipe, runs, list(overrides))
    click.echo(markdown(measurement))
    if json_path is not None:
        write_json(json_path, asdict(measurement))


if __name__ == "__main__":
    main()
