"""The table on paper: ratios, targets and verdicts where they belong."""

import json
from pathlib import Path

from benchmarks.peers.report import Cell, FigureRow, Measurement, Table, markdown, write
from bentune.bundle.hardware import Cpu

TABLE = Table(
    Measurement(Cpu(model="A CPU", isa=("avx2",), cores=2), {"variant": "int8", "provider": "P"}, 405, 146.2, 3, 6.0),
    ["bentune", "textbook"],
    [
        FigureRow(
            "many", "requests/s", {"bentune": Cell(200.0, 5.0), "textbook": Cell(40.0, 1.0)}, "at least 5.0 x", True
        ),
        FigureRow(
            "many", "p99 ms", {"bentune": Cell(300.0, 0.5), "textbook": Cell(600.0, 1.0)}, "at most 0.35 x", False
        ),
        FigureRow("accuracy", "%", {"bentune": Cell(51.25, None), "torch": Cell(51.0, None)}, "within 0.5", True),
    ],
)


def test_a_line_a_figure_with_ratios_and_verdicts() -> None:
    lines = markdown(TABLE).splitlines()
    assert lines[0] == "| case | figure | bentune | textbook | target |  |"
    assert lines[2:5] == [
        "| many | requests/s | 200 (5.00) | 40 (1.00) | at least 5.0 x | yes |",
        "|  | p99 ms | 300 (0.50) | 600 (1.00) | at most 0.35 x | **no** |",
        "| accuracy | % | 51.25 |  | within 0.5 (torch 51) | yes |",
    ]
    assert lines[-1].startswith("A CPU, 2 cores, load generator included; int8 on P; 405 test texts of 146.2 tokens")


def test_both_files_are_written(tmp_path: Path) -> None:
    write(TABLE, tmp_path / "new")
    assert (tmp_path / "new/table.md").read_text() == markdown(TABLE)
    found = json.loads((tmp_path / "new/table.json").read_text())
    assert found["rows"][0]["cells"]["bentune"] == {"value": 200.0, "ratio": 5.0}
    assert found["measurement"]["cpu"]["cores"] == 2
