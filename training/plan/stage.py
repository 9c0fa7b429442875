"""Stage `plan`: a search, by measurement, for the fastest configuration on this CPU at fp32's accuracy.

    build variants -> refuse those that lose too much accuracy -> measure the others as they would be served -> choose

plan.json keeps every variant and configuration that was tried, with the reason why it was refused.
"""

import shutil
from pathlib import Path

import numpy as np
from rich.markup import escape

from bentune.bundle.errors import GateError
from bentune.bundle.files import write_json
from bentune.bundle.hardware import Cpu, describe
from bentune.bundle.manifest import GoldenRow
from bentune.bundle.plan import FP32, Check, Entry, Plan, model_file, scores_key
from service.engine.predictor import Predictor, Session
from service.engine.runtime import Runtime
from service.tasks.task import Task
from training.pipeline.layout import DataFiles, ExportFiles, PlanFiles, VerifyFiles
from training.pipeline.results import PlanResult
from training.pipeline.stage import Context
from training.plan.baseline import baseline
from training.plan.candidates import Trial, candidates
from training.plan.checks import Sample, logits_alone
from training.plan.contention import CpuClocks, contention
from training.plan.report import checks_table, draw_pareto, entries_table, markdown, verdict
from training.plan.search import search, steps
from training.plan.speed import RowTraffic, measure
from training.prove.exported import encoded, served_task
from training.prove.golden import rounded
from training.tasks.base.load import quiet
from training.tasks.rows import RowFile, Rows, open_rows
from training.tasks.saved import target_in


def run(context: Context) -> PlanResult:
    """Search for the plan.

    Writes plan.json, golden.jsonl, baseline.json, report.md, pareto.png, and into model/ every variant that a pod may
    run. Raises GateError when no variant may be served.
    """
    quiet()
    recipe, report = context.recipe, context.report
    exported, data = context.files(ExportFiles), context.files(DataFiles)
    settings, cpu = recipe.plan, describe()
    target = target_in(data.directory)
    task = served_task(exported.directory, recipe, target)
    held_out = _some(open_rows(data.test), settings.rows, recipe.seed)
    # Calibration on the test set would fit the scales of int8 to the rows that measure accuracy.
    training = _some(open_rows(data.train), settings.calibration_rows, recipe.seed)
    sample = Sample(encoded(held_out, task.encoder), held_out.labels, task.encoder, target)
    trial = Trial(sample, encoded(training, task.encoder), settings, cpu, recipe.seed)
    with report.task("building and checking variants", (1 + len(settings.variants)) * len(held_out)) as advance:
        checks, models = candidates(exported.fp32, context.work / "tried", trial, advance)
    report.say(checks_table(checks))
    if all(found.problem for found in checks):
        raise GateError("plan", f"plan: nothing may be served, not even fp32: {checks[0].problem}")
    before = CpuClocks.read()
    entries = _measured(context, cpu, checks, models, task, sample)
    best, others = entries[0], contention(before, CpuClocks.read(), cpu.cores)
    plan = Plan(
        variant=best.variant,
        provider=best.provider,
        slots=best.slots,
        threads=best.threads,
        token_budget=best.token_budget,
        cpu=cpu,
        taken=round(others, 3),
        checks=tuple(checks),
        measured=tuple(entries),
    )
    # Confidence of the chosen variant, as in the pods: int8 changes it by more than the width of a narrow bin.
    session = Session(models[best.variant], best.provider, 1, cpu.cores)
    logits = logits_alone(session, sample, cpu.cores, lambda _: None)
    seen = baseline(sample.tokens, task.encoder.settings, logits, recipe.seed, target)
    write_json(PlanFiles(context.work).baseline, seen)
    _write(context, plan, models, task)
    report.say(entries_table(plan))
    report.say(escape(verdict(plan)))
    return PlanResult(**best.model_dump())


def _measured(
    context: Context, cpu: Cpu, checks: list[Check], models: dict[str, Path], task: Task, sample: Sample
) -> list[Entry]:
    recipe = context.recipe
    traffic = RowTraffic(sample.tokens, recipe.seed)
    with context.report.task("measuring configurations", steps(checks, cpu.cores)) as advance:

        def one(runtime: Runtime) -> Entry:
            entry = measure(models[runtime.variant], runtime, task, traffic, Plan().padding_bound, recipe.plan.seconds)
            advance(1)
            return entry

        return search(checks, cpu.cores, one)


def _write(context: Context, plan: Plan, models: dict[str, Path], task: Task) -> None:
    work, files = context.work, PlanFiles(context.work)
    files.model.mkdir()
    for variant in sorted(plan.variants - {FP32}):
        shutil.copyfile(models[variant], work / model_file(variant))
    shutil.rmtree(work / "tried")
    lines = context.files(VerifyFiles).golden.read_text(encoding="utf-8").splitlines()
    golden = [GoldenRow.model_validate_json(line) for line in lines]
    for variant, provider in sorted({(entry.variant, entry.provider) for entry in plan.measured}):
        directory = context.files(ExportFiles).directory if variant == FP32 else work
        session = Session(directory / model_file(variant), provider, 1)
        predictor = Predictor(task, session)
        golden = _with_scores(golden, predictor, scores_key(variant, provider))
    files.golden.write_text("".join(row.model_dump_json() + "\n" for row in golden), encoding="utf-8")
    draw_pareto(plan, files.pareto)
    files.report.write_text(markdown(plan), encoding="utf-8")
    write_json(files.plan, plan)


def _with_scores(golden: list[GoldenRow], predictor: Predictor, key: str) -> list[GoldenRow]:
    """Add `predictor`'s scores to each row under `key`; existing scores stay."""
    rows = []
    for row in golden:
        one = predictor.task.encoder.encode(row.text, row.text_pair, truncate=True)
        scores = rounded(predictor.scores(predictor.logits([one]))[0])
        rows.append(row.model_copy(update={"scores": {key: scores} | row.scores}))
    return rows


def _some(rows: RowFile, most: int, seed: int) -> Rows:
    return rows.take(np.sort(np.random.default_rng(seed).permutation(len(rows))[:most]))
