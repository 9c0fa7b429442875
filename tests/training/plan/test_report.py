"""The plan for people: who won, why each other lost, and the same in a table, a page and a picture."""

import struct
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bentune.bundle.errors import InputError
from bentune.bundle.files import write_json
from bentune.bundle.hardware import Cpu
from bentune.bundle.plan import CPU, FP32, OPENVINO, Check, Entry, Plan
from training.plan import report as plan_report
from training.plan.report import best_of, checks_table, draw_pareto, entries_table, explanation, markdown, verdict


def check(variant: str, provider: str = CPU, **more: Any) -> Check:
    values = {
        "rows": 512,
        "megabytes": 22.9,
        "accuracy": 0.95,
        "accuracy_loss": 0.25,
        "loss_low": -0.5,
        "loss_high": 1.0,
        "label_flips": 4,
        "batch_flips": 0,
        "batch_difference": 0.00123,
    }
    return Check(variant=variant, provider=provider, **values | more)


def entry(variant: str, speed: float, provider: str = CPU, **more: Any) -> Entry:
    shape = {"slots": 2, "threads": 1, "token_budget": 512, "lone_ms": 12.34, "padding": 0.0567}
    return Entry(variant=variant, provider=provider, inputs_per_second=speed, **shape | more)


PLAN = Plan(
    variant="int8-nncf",
    slots=2,
    threads=1,
    token_budget=512,
    cpu=Cpu(model="A CPU of the test", isa=("avx2",), cores=2),
    checks=(
        check(FP32, accuracy_loss=0.0, label_flips=0),
        check("int8-dynamic", alone=True, batch_flips=7),
        check("int8-static", accuracy_loss=3.5, problem="it loses 3.50 points of accuracy, 0.50 are allowed"),
        check("int8-nncf", kept_fp32=("head", "block-1")),
        Check(variant="int8-nncf", provider=OPENVINO, rows=0, megabytes=0, problem="cannot be loaded on it"),
    ),
    measured=(
        entry("int8-nncf", 200.0),
        entry("int8-dynamic", 150.0, token_budget=1),
        entry("int8-nncf", 120.0, token_budget=1024),
        entry(FP32, 80.0),
        entry(FP32, 50.0, slots=1),
    ),
)


def printed(*parts: Any) -> str:
    console = Console(width=240, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115
    for part in parts:
        console.print(part)
    return console.export_text()


# In words.


def test_the_verdict_has_a_line_for_the_winner_and_for_each_loser_with_its_reason() -> None:
    assert verdict(PLAN).splitlines() == [
        f"int8-nncf on {CPU} wins with 200 inputs/s: 2 slots of 1 threads, batches of at most 512 tokens",
        f"fp32 on {CPU} lost: 80 inputs/s, 0.40 x the winner's",
        f"int8-dynamic on {CPU} lost: 150 inputs/s, 0.75 x the winner's, one row at a time because its answers depend "
        "on the batch",
        f"int8-static on {CPU} was refused: it loses 3.50 points of accuracy, 0.50 are allowed",
        f"int8-nncf on {OPENVINO} was refused: cannot be loaded on it",
    ]


def test_a_loser_that_was_a_little_faster_changes_more_labels() -> None:
    level = PLAN.model_copy(
        update={
            "checks": (check(FP32, label_flips=0), check("int8-static", label_flips=9)),
            "measured": (entry(FP32, 100.0), entry("int8-static", 104.0)),
        }
    )
    assert verdict(level).splitlines()[1] == (
        f"int8-static on {CPU} lost: 104 inputs/s, 1.04 x the winner's; that is a tie, but it changes 9 of fp32's "
        "labels, the winner 0"
    )


def test_a_machine_that_others_kept_busy_makes_the_plan_doubtful() -> None:
    assert "other programs" not in verdict(PLAN.model_copy(update={"taken": 0.1}))
    last = verdict(PLAN.model_copy(update={"taken": 0.25})).splitlines()[-1]
    assert last.startswith("other programs kept 25% of the cores busy meanwhile")


def test_the_best_entry_of_a_check_is_its_fastest() -> None:
    assert best_of(PLAN, PLAN.checks[0]).inputs_per_second == 80.0
    assert best_of(PLAN, PLAN.checks[3]).inputs_per_second == 200.0


# Tables.


def test_the_table_of_checks_has_every_check_with_its_verdict() -> None:
    lines = printed(checks_table(PLAN.checks)).splitlines()
    assert "512 test rows" in lines[0]
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert [(row[0], row[1], row[-1]) for row in rows] == [
        ("fp32", "CPU", "pass"),
        ("int8-dynamic", "CPU", "pass"),
        ("int8-static", "CPU", "refused"),
        ("int8-nncf (head and block-1 in fp32)", "CPU", "pass"),
        ("int8-nncf", "OpenVINO", "refused"),
    ]
    assert rows[1][1:-1] == ["CPU", "23", "0.950", "0.25  [-0.50, 1.00]", "4", "7 flips, 0.0012: alone"]
    assert rows[4][2:-1] == ["0", "", "", "", ""]


def test_a_variant_is_judged_by_the_entry_that_was_measured_most() -> None:
    entries = (
        entry("int8-static", 100.0, rounds=3),
        entry(FP32, 105.0),  # one lucky round
        entry(FP32, 90.0, token_budget=1024, rounds=3),
        entry(FP32, 300.0, slots=1, rounds=4),  # not all cores
    )
    plan = PLAN.model_copy(update={"variant": "int8-static", "measured": entries, "checks": (check(FP32),)})
    assert best_of(plan, plan.checks[0]) == entries[2]
    assert verdict(plan).splitlines()[1] == f"fp32 on {CPU} lost: 90 inputs/s, 0.90 x the winner's"


def test_a_plan_that_was_measured_beside_others_is_called_doubtful() -> None:
    assert "other programs" not in verdict(PLAN.model_copy(update={"taken": 0.1}))
    last = verdict(PLAN.model_copy(update={"taken": 0.35})).splitlines()[-1]
    assert last.startswith("other programs kept 35% of the cores busy meanwhile")


def test_the_table_of_what_was_measured_has_every_entry() -> None:
    lines = printed(entries_table(PLAN)).splitlines()
    assert "A CPU of the test, 2 cores" in lines[0]
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert rows[0] == ["int8-nncf", "CPU", "2 x 1", "512", "200.0", "12.3", "0.057", "1"]
    assert [row[4] for row in rows] == ["200.0", "150.0", "120.0", "80.0", "50.0"]


# The page.


def tables_of(page: str) -> list[list[list[str]]]:
    """The cells of each table of a Markdown page, as a renderer takes them apart."""
    found: list[list[list[str]]] = [[]]
    for line in page.splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


def test_the_page_holds_every_row_of_both_tables_and_the_verdict() -> None:
    page = markdown(PLAN)
    assert "Measured on A CPU of the test, 2 cores." in page
    assert "![accuracy and speed of each variant](pareto.png)" in page
    assert all(f"- {line}\n" in page for line in verdict(PLAN).splitlines())
    checks, entries = tables_of(page)
    assert (checks[0], entries[0]) == (list(plan_report.CHECK_COLUMNS), list(plan_report.ENTRY_COLUMNS))
    assert checks[1] == ["---"] * len(checks[0])
    assert [row[0] for row in checks[2:]] == [
        *("fp32", "int8-dynamic", "int8-static", "int8-nncf (head and block-1 in fp32)", "int8-nncf")
    ]
    assert [row[-1] for row in checks[2:]] == [
        *("pass", "pass", "it loses 3.50 points of accuracy, 0.50 are allowed", "pass", "cannot be loaded on it")
    ]
    assert [row[4] for row in entries[2:]] == ["200.0", "150.0", "120.0", "80.0", "50.0"]


def test_what_stands_in_a_cell_cannot_break_the_table() -> None:
    odd = Check(variant="int8-static", provider="a|b", rows=1, megabytes=1, problem="either | or\nboth ||")
    checks, _ = tables_of(markdown(PLAN.model_copy(update={"checks": (*PLAN.checks, odd)})))
    assert {len(row) for row in checks} == {len(plan_report.CHECK_COLUMNS)}
    assert (checks[-1][1], checks[-1][-1]) == ("a/b", "either / or both //")


def test_a_plan_of_an_unknown_cpu_says_so() -> None:
    assert "Measured on an unknown CPU." in markdown(PLAN.model_copy(update={"cpu": None}))


# The picture.


def test_the_plot_is_a_real_png_of_some_size(tmp_path: Path) -> None:
    draw_pareto(PLAN, tmp_path / "pareto.png")
    content = (tmp_path / "pareto.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert content[-8:-4] == b"IEND"
    assert struct.unpack(">II", content[16:24]) == (960, 600)

    from matplotlib.image import imread

    pixels = imread(tmp_path / "pareto.png")
    assert pixels.shape[:2] == (600, 960)
    assert len({tuple(pixel) for pixel in pixels.reshape(-1, pixels.shape[2])[::7]}) > 10, "something is drawn"


def test_the_plot_shows_what_passed_and_stars_the_winner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, list[Any]] = {"points": [], "labels": [], "front": [], "speed": []}
    from matplotlib.axes import Axes

    real_points, real_text, real_line, real_label = Axes.errorbar, Axes.annotate, Axes.plot, Axes.set_xlabel

    def errorbar(self: Axes, x: float, y: float, **more: Any) -> Any:
        drawn["points"].append((x, y, more["fmt"], [round(one[0], 6) for one in more["yerr"]]))
        return real_points(self, x, y, **more)

    def annotate(self: Axes, text: str, *arguments: Any, **more: Any) -> Any:
        drawn["labels"].append(text)
        return real_text(self, text, *arguments, **more)

    def plot(self: Axes, *arguments: Any, **more: Any) -> Any:
        if more.get("linestyle") == ":":
            drawn["front"].append(list(zip(*arguments, strict=True)))
        return real_line(self, *arguments, **more)

    def set_xlabel(self: Axes, text: str, **more: Any) -> Any:
        drawn["speed"].append(text)
        return real_label(self, text, **more)

    monkeypatch.setattr(Axes, "set_xlabel", set_xlabel)
    monkeypatch.setattr(Axes, "errorbar", errorbar)
    monkeypatch.setattr(Axes, "annotate", annotate)
    monkeypatch.setattr(Axes, "plot", plot)
    checks = (
        check(FP32, accuracy=0.96, accuracy_loss=0.0, loss_low=-0.5, loss_high=0.5),
        check("int8-dynamic", accuracy=0.93, accuracy_loss=3.0, loss_low=1.0, loss_high=5.0),
        check("int8-static", problem="it loses 3.50 points of accuracy, 0.50 are allowed"),
        check("int8-nncf", accuracy=0.95, accuracy_loss=1.0, loss_low=0.25, loss_high=2.0),
    )
    draw_pareto(PLAN.model_copy(update={"checks": checks}), tmp_path / "pareto.png")
    assert drawn["speed"] == ["inputs a second, every slot busy"]
    # The error bar is the interval of the loss, seen from fp32's accuracy.
    assert drawn["points"] == [
        (80.0, 96.0, "o", [0.5, 0.5]),
        (150.0, 93.0, "o", [2.0, 2.0]),
        (200.0, 95.0, "*", [1.0, 0.75]),
    ]
    assert drawn["labels"] == [f"{name}\nCPU" for name in ("fp32", "int8-dynamic", "int8-nncf")]
    assert drawn["front"] == [[(80.0, 96.0), (200.0, 95.0)]], "int8-dynamic is slower and worse than the winner"


def test_a_plot_of_fp32_alone_is_drawn_too(tmp_path: Path) -> None:
    alone = PLAN.model_copy(update={"checks": PLAN.checks[:1], "measured": PLAN.measured[3:]})
    draw_pareto(alone, tmp_path / "pareto.png")
    assert (tmp_path / "pareto.png").stat().st_size > 1000


# From a run.


def test_an_explanation_is_the_plan_of_the_directory_with_its_tables_and_verdict(tmp_path: Path) -> None:
    write_json(tmp_path / "plan.json", PLAN)
    plan, parts = explanation(tmp_path)
    assert plan == PLAN
    shown = printed(*parts)
    assert "int8-nncf (head and block-1 in fp32)" in shown
    assert "wins with 200 inputs/s" in shown
    assert "0.40 x the winner's" in shown


def test_what_looks_like_markup_is_shown_as_it_is(tmp_path: Path) -> None:
    """A path or a message of ONNX Runtime may have brackets.

    rich would take [b] for bold, and [/x] for an error of ours.
    """
    odd = check("int8-static", problem="/runs/a[b]/x.onnx: [/tmp/y] is missing")
    write_json(tmp_path / "plan.json", PLAN.model_copy(update={"checks": (*PLAN.checks, odd)}))
    assert "was refused: /runs/a[b]/x.onnx: [/tmp/y] is missing" in printed(*explanation(tmp_path)[1])


def test_without_a_plan_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        explanation(tmp_path / "plan")
    assert str(caught.value) == (
        f"{tmp_path}/plan/plan.json does not exist: run `bentune plan` first, or `bentune run`"
    )
