"""Benchmark of Bentune and its peers on this machine; prints the table of docs/serving/speed.md.

Every system serves the same fine-tuned weights and gets the same texts. They are measured in turns, round by round, so
that a slow minute of the machine affects all. Figures are ratios to the textbook service of the same rounds.
"""

import contextlib
import json
import math
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import bentoml
import click
import httpx
from rich.progress import Progress

from benchmarks.peers.cases import CROWD, Case, cases
from benchmarks.peers.in_process import InProcess
from benchmarks.peers.model_directory import write_model_directory
from benchmarks.peers.peers import PEERS, TEXTBOOK, install
from benchmarks.peers.report import Cell, FigureRow, Measurement, Table, write
from benchmarks.peers.systems import OURS, System, start_ours, start_peer
from benchmarks.peers.texts import Texts, texts_of
from bentune.bundle.errors import InputError
from bentune.bundle.hardware import describe
from bentune.bundle.manifest import Bundle, open_bundle
from rollout.load.generator import Load, closed_loop
from rollout.load.generator import run as run_loop
from training.pipeline.run_dir import RunDir
from training.recipe.file import load_recipe

BATCH_OF_ROWS = 32


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a value of the recipe.")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)
@click.option("--tokens", default=256, show_default=True, help="Most tokens of a text; longer ones are cut.")
@click.option("--paragraphs", is_flag=True, help="Send the paragraphs of the rows, not whole rows.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--seconds", default=6.0, show_default=True, type=click.FloatRange(0.5), help="Seconds of each round and system."
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("runs/bench"), show_default=True)
def main(
    recipe: Path,
    overrides: tuple[str, ...],
    runs: Path,
    tokens: int,
    paragraphs: bool,
    rounds: int,
    seconds: float,
    out: Path,
) -> None:
    """Compare the newest finished run of RECIPE with the peers.

    The run is served as a Bento. Peers that cannot be installed are left out.
    """
    with RunDir.open(runs, load_recipe(recipe, overrides).recipe.name) as directory:
        run = directory.root
    artifacts = json.loads((run / "package/artifacts.json").read_text(encoding="utf-8"))
    bundle = open_bundle(Path(bentoml.models.get(artifacts["model"]).path))
    max_tokens = bundle.manifest.limits.max_tokens
    texts = texts_of(run, bundle.manifest.labels, tokens, max_tokens, paragraphs=paragraphs)
    peers = install(PEERS)
    if TEXTBOOK not in peers:
        raise InputError("the textbook service could not be installed: it is the reference of all ratios")
    with contextlib.ExitStack() as stack:
        model = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "model"
        write_model_directory(run, model, max_tokens)
        systems = [start_ours(stack, artifacts["bento"])]
        systems += [start_peer(stack, peer, model, max_tokens) for peer in peers]
        table = _measure(systems, texts, bundle, run, rounds, seconds)
    write(table, out)
    click.echo((out / "table.md").read_text(encoding="utf-8"))


def _measure(systems: list[System], texts: Texts, bundle: Bundle, run: Path, rounds: int, seconds: float) -> Table:
    rows: list[FigureRow] = []
    ours = systems[0]
    everything = cases(seconds)
    with Progress(transient=True) as progress:
        bar = progress.add_task("measuring", total=rounds * (len(everything) * len(systems) + 4) + 2)
        for case in everything:
            loads: dict[str, list[Load]] = {system.name: [] for system in systems}
            for _ in range(rounds):
                for system in systems:
                    progress.update(bar, description=f"{case.name}: {system.name}")
                    loads[system.name].append(_load(system, case, texts))
                    progress.advance(bar)
            rows += _rows(case, {name: Load.joined(parts) for name, parts in loads.items()})
        progress.update(bar, description="in process")
        [crowd] = [case for case in everything if case.name == CROWD]
        rows += _in_process(ours, texts, bundle, crowd, rounds, seconds, lambda: progress.advance(bar))
        progress.update(bar, description="accuracy")
        rows.append(_accuracy(ours, texts, run, bundle))
    memory = {system.name: round(system.rss_mb()) for system in systems}
    ratio = memory[OURS] / memory[TEXTBOOK.name]
    cells = {name: Cell(value=value, ratio=None) for name, value in memory.items()}
    rows.append(FigureRow("resident memory after all of this", "MB", cells, "below the textbook's", ratio < 1))
    measurement = Measurement(
        cpu=describe(),
        plan={"variant": bundle.plan.variant, "provider": bundle.plan.provider},
        texts=len(texts.usual),
        mean_tokens=round(texts.mean_tokens, 1),
        rounds=rounds,
        seconds=seconds,
    )
    return Table(measurement, [system.name for system in systems], rows)


def _load(system: System, case: Case, texts: Texts) -> Load:
    bodies = case.bodies(system, texts)
    with system.awake():
        return run_loop(
            closed_loop(system.target, bodies, clients=case.clients, seconds=case.seconds, warmup_s=case.warmup_s)
        )


def _rows(case: Case, loads: dict[str, Load]) -> list[FigureRow]:
    rows = []
    for figure in case.figures:
        values = {name: figure.read(load) for name, load in loads.items()}
        reference = values[TEXTBOOK.name]
        cells = {name: _cell(value, reference) for name, value in values.items()}
        target = None
        if figure.target is not None:
            target = f"{'at least' if figure.higher_is_better else 'at most'} {figure.target} x"
        ratio = cells[OURS].ratio
        held = ratio is not None and figure.held(ratio)
        rows.append(FigureRow(case.name, figure.name, cells, target, held if target else None))
    failed = {
        name: sum(n for status, n in load.statuses.items() if status != httpx.codes.OK) for name, load in loads.items()
    }
    if any(failed.values()):
        rows.append(
            FigureRow(
                case.name, "failed requests", {n: Cell(value=v, ratio=None) for n, v in failed.items()}, None, None
            )
        )
    return rows


def _cell(value: float, reference: float) -> Cell:
    """Return a cell with the ratio of `value` to `reference`.

    It has no ratio if one of the two gave no answer in time. Its target is then missed.
    """
    ratio = value / reference if reference > 0 else math.nan
    return Cell(value=round(value, 1) if math.isfinite(value) else None, ratio=ratio if math.isfinite(ratio) else None)


def _in_process(
    ours: System, texts: Texts, bundle: Bundle, case: Case, rounds: int, seconds: float, advance: Callable[[], None]
) -> list[FigureRow]:
    """Measure the served rate, the same sessions without HTTP, and one slot, in turns."""
    slots = bundle.plan.measured[0].slots
    all_slots, one_slot = InProcess(bundle, slots), InProcess(bundle, 1)
    served, bound, single = [], [], []
    for _ in range(rounds):
        served.append(_load(ours, case, texts).inputs_per_s)
        bound.append(all_slots.texts_per_second(texts.usual, seconds))
        single.append(one_slot.texts_per_second(texts.usual, seconds))
        for _ in range(4):
            advance()
    rate, most, one = (statistics.median(values) for values in (served, bound, single))
    return [
        FigureRow(
            "served / in process",
            "texts/s",
            {OURS: Cell(value=round(rate, 1), ratio=rate / most)},
            f"at least 0.85 of {most:.1f}",
            rate / most >= 0.85,
        ),
        FigureRow(
            f"{slots} slots / 1, in process",
            "texts/s",
            {OURS: Cell(value=round(most, 1), ratio=most / one)},
            f"at least 1.8 x {one:.1f}",
            most / one >= 1.8,
        ),
    ]


def _accuracy(ours: System, texts: Texts, run: Path, bundle: Bundle) -> FigureRow:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from training.tasks.logits import torch_logits
    from training.tasks.rows import read_rows

    answers: list[str] = []
    with ours.awake(), httpx.Client(timeout=60) as client:
        for start in range(0, len(texts.rows), BATCH_OF_ROWS):
            body = ours.spell(texts.rows[start : start + BATCH_OF_ROWS])
            answer = client.post(ours.target.url + ours.target.path, json=body)
            answers += ours.labels(answer.raise_for_status().json())
    served = statistics.mean(answer == label for answer, label in zip(answers, texts.labels, strict=True))
    rows, merged = read_rows(run / "data/test.parquet"), run / "merge/model"
    model = AutoModelForSequenceClassification.from_pretrained(merged, use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(merged, use_fast=True)
    logits, _ = torch_logits(model, tokenizer, rows, bundle.manifest.limits.max_tokens, lambda _: None)
    torch_accuracy = float((logits.argmax(-1) == rows.labels).mean())
    points = 100 * (served - torch_accuracy)
    return FigureRow(
        f"accuracy on {len(texts.rows)} labelled rows",
        "%",
        {
            OURS: Cell(value=round(100 * served, 2), ratio=None),
            "fp32 torch": Cell(round(100 * torch_accuracy, 2), None),
        },
        "within 0.5 points of fp32 torch",
        points >= -0.5,
    )


if __name__ == "__main__":
    main()
