"""Table as Markdown and JSON: values with their ratio to the textbook service, targets and results."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bentune.bundle.files import write_json, write_text
from bentune.bundle.hardware import Cpu


@dataclass(frozen=True)
class Cell:
    """Measured value, None without any answer, and its ratio to the textbook service's where there is one."""

    value: float | None
    ratio: float | None


@dataclass(frozen=True)
class FigureRow:
    """One figure of one case; `held` is None where there is no target."""

    case: str
    figure: str
    cells: dict[str, Cell]
    target: str | None
    held: bool | None


@dataclass(frozen=True)
class Measurement:
    """Description of a measurement: texts, machine, rounds."""

    cpu: Cpu
    plan: dict[str, Any]
    texts: int
    mean_tokens: float
    rounds: int
    seconds: float


@dataclass(frozen=True)
class Table:
    """All rows; `systems` are the columns, ours first."""

    measurement: Measurement
    systems: list[str]
    rows: list[FigureRow]


def write(table: Table, directory: Path) -> None:
    """Write table.md and table.json."""
    directory.mkdir(parents=True, exist_ok=True)
    write_text(directory / "table.md", markdown(table))
    plain = asdict(table)
    plain["measurement"]["cpu"] = table.measurement.cpu.model_dump(mode="json")
    write_json(directory / "table.json", plain)


def markdown(table: Table) -> str:
    """Return the table with a line for each figure.

    Ratios in brackets are to the textbook service in the same rounds.
    """
    found = table.measurement
    columns = ["case", "figure", *table.systems, "target", ""]
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    last = ""
    for row in table.rows:
        cells = [_cell(row.cells.get(system)) for system in table.systems]
        others = [f"{name} {_cell(cell)}" for name, cell in row.cells.items() if name not in table.systems]
        target = " ".join([row.target or "", *(f"({other})" for other in others)]).strip()
        mark = {True: "yes", False: "**no**", None: ""}[row.held]
        name = row.case if row.case != last else ""
        last = row.case
        lines.append(f"| {name} | {row.figure} | {' | '.join(cells)} | {target} | {mark} |")
    lines.append("")
    lines.append(
        f"{found.cpu.model}, {found.cpu.cores} cores, load generator included; {found.plan['variant']} on "
        f"{found.plan['provider']}; {found.texts} test texts of {found.mean_tokens} tokens on average; "
        f"{found.rounds} rounds of {found.seconds:g} s in turns. In brackets: the ratio to the textbook service."
    )
    return "\n".join(lines) + "\n"


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return ""
    if cell.value is None:
        return "none"
    value = f"{cell.value:g}"
    return value if cell.ratio is None else f"{value} ({cell.ratio:.2f})"
