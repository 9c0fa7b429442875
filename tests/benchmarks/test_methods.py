"""The methods beside each other: the table of docs/training/methods.md."""

from benchmarks.methods import MethodMeasurement, MethodRow, markdown


def row(method: str, seconds: float) -> MethodRow:
    return MethodRow(method, 0.9, 0.85, 0.95, 1_500, 60_000, 1e-3, seconds, 700.4, 1.254)


def test_times_are_ratios_to_the_first_method() -> None:
    table = markdown(
        MethodMeasurement([row("`full`", 80), row("`head`", 20)], held_out=425, loaded_mb=600)
    ).splitlines()
    assert "accuracy on 425 rows" in table[0]
    assert table[2:4] == [
        "| `full` | 0.900 [0.850, 0.950] | 1,500 (2.50%) | 1.00 | 700 | 1.25 |",
        "| `head` | 0.900 [0.850, 0.950] | 1,500 (2.50%) | 0.25 | 700 | 1.25 |",
    ]
    assert "600 MB" in table[-1]
