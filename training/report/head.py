"""The top and the end of a report: key numbers, cautions, names and values, the commands that repeat the run."""

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from bentune.bundle.hardware import Cpu
from bentune.bundle.plan import FP32, Plan
from training.data.cautions import cautions_of as cautions_about
from training.pipeline.results import TrainResult
from training.plan.contention import MAX_CONTENTION
from training.plan.report import short_provider
from training.recipe.recipe import Recipe
from training.report.facts import Facts, spelled
from training.tasks.registry import target_of, task_of

LEAST_SHOWN = 0.001
"""Smallest share of zeros to show: fewer zeros are chance, not pruning."""


class Tile(NamedTuple):
    """A number at the top of the page."""

    name: str
    value: str
    note: str


def tiles_of(facts: Facts) -> list[Tile]:
    """List the key numbers of a run."""
    tiles = []
    if facts.evaluation:
        report = facts.evaluation.tuned
        for name in type(report).tiles:
            base, tuned = (one.metrics[name] for one in (facts.evaluation.base, report))
            form = ".1%" if name in type(report).shares else ".3f"
            interval = f"{tuned.low:{form}} to {tuned.high:{form}}; before {base.value:{form}}"
            tiles.append(Tile(f"{spelled(name)}, test set", f"{tuned.value:{form}}", interval))
    elif facts.training:
        tiles.append(Tile("mean training loss", f"{facts.training.loss:.3f}", f"{facts.training.steps:,} steps"))
    if facts.training:
        count = facts.training.parameters
        note = f"of {count.total:,} weights are trained"
        tiles.append(Tile("trained", f"{count.trainable / count.total:.1%}", note))
    if facts.parity:
        hops = facts.parity.hops
        passed = sum(not hop.problems for hop in hops)
        note = f"largest logit difference {facts.parity.largest_difference:.2g}"
        tiles.append(Tile("hops that hold", f"{passed} of {len(hops)}", note))
    if facts.plan and facts.plan.measured:
        best = facts.plan.measured[0]
        note = f"{best.variant} on {short_provider(best.provider)}, {best.slots} x {best.threads} threads"
        tiles.append(Tile(f"{task_of(facts.recipe).nouns} a second", f"{best.inputs_per_second:,.0f}", note))
    return tiles


def cautions_of(facts: Facts, missing: Sequence[str], revision: str) -> list[str]:
    """List the cautions about a run, a sentence each."""
    cautions = cautions_about(facts.data, facts.recipe) if facts.data else []
    cautions += facts.training.warnings if facts.training else []
    if facts.evaluation and facts.evaluation.minimum and facts.evaluation.minimum.useless:
        cautions.append("The model is not shown to be better than a constant answer: see its minimum.")
    if facts.parity:
        cautions += [f"hop {hop.hop}: {problem}" for hop in facts.parity.hops for problem in hop.problems]
    if facts.plan and facts.plan.taken > MAX_CONTENTION:
        cautions.append(
            f"Other programs kept {facts.plan.taken:.0%} of the cores busy while the runtime plan was measured, so "
            "another variant may be the fastest."
        )
    if revision.endswith("-dirty"):
        cautions.append("The code had changes that are in no commit: its revision alone does not identify it.")
    if missing:
        cautions.append(
            f"Not in this report: {', '.join(missing)}. Either not done yet, or done for another recipe, other rows or "
            "other hardware than now; `bentune run` does what is missing."
        )
    return cautions


def what_of(facts: Facts, revision: str) -> list[tuple[str, str]]:
    """List the run's names and values: task, base model, method, rows, hardware, tags."""
    recipe, data, training, packaged = facts.recipe, facts.data, facts.training, facts.packaged
    settings = recipe.method.model_dump(mode="json", exclude={"name"})
    method = ", ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in settings.items())
    rows = [("task", recipe.task), ("base model", recipe.model)]
    if note := target_of(recipe).note:
        rows.append(("labels of a row", note))
    if training:
        rows.append(("its sha256", training.base_sha256))
        if training.base != recipe.model:
            rows.append(("started from", training.base))
    rows.append(("method", f"{recipe.method.name} ({method})" if method else recipe.method.name))
    if training:
        count = training.parameters
        rows.append(("weights", f"{count.trainable:,} of {count.total:,} trained"))
        rows += _training(training, recipe)
    if bound := task_of(recipe).bound(recipe.max_tokens):
        rows.append((f"longest {task_of(recipe).noun}", bound))
    sources = ", ".join(recipe.data.sources)
    rows.append(("rows from", sources + (f": {recipe.data.query}" if recipe.data.query else "")))
    if data:
        rows.append(("data fingerprint", data.fingerprint))
    rows += [("recipe digest", facts.recipe_digest), ("code revision", revision)]
    if training:
        gpus = [", ".join(training.hardware.gpus)] if training.hardware.gpus else []
        rows.append(("trained on", "; ".join([*gpus, _cpu(training.hardware.cpu)])))
    if facts.plan and facts.plan.cpu:
        rows.append(("runtime plan for", _cpu(facts.plan.cpu)))
    if packaged:
        rows += [("model tag", packaged.model), ("Bento", packaged.bento), ("bundle digest", packaged.digest)]
    return rows


def _training(training: TrainResult, recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield names and values of the training, the distillation and the pruning."""
    kept = f"; the weights of step {training.best_step:,} were kept" if training.best_step else ""
    stopped = ", stopped early" if training.stopped_early else ""
    yield (
        "training",
        f"{training.steps:,} steps of {recipe.train.batch_size} rows, epochs {recipe.train.epochs:g}{stopped}{kept}",
    )
    yield "learning rate", f"{training.learning_rate:g} at its peak, schedule {recipe.train.schedule}"
    where = "1 process" if training.processes == 1 else f"{training.processes} processes"
    yield "computed in", f"{training.precision} in {where}, seed {recipe.seed}"
    if training.teacher:
        teacher, layers = training.teacher, recipe.distill.student_layers if recipe.distill else None
        student = f"; the student has {layers} of the base model's layers" if layers else ""
        right = f"which answers {teacher.training_accuracy:.1%} of the training rows as they are labelled"
        yield "learned from", f"{teacher.source}, {right}{student}"
    if training.pruned:
        pruned = training.pruned
        gone = {"heads": (pruned.heads, pruned.heads_before), "neurons": (pruned.neurons, pruned.neurons_before)}
        parts = [f"{taken:,} of {before:,} {name} are gone" for name, (taken, before) in gone.items() if taken]
        parts.append(f"{pruned.parameters:,} of {pruned.parameters_before:,} weights are left")
        if pruned.zeros > LEAST_SHOWN:
            parts.append(f"{pruned.zeros:.1%} of the linear ones are zero")
        parts.append(f"tuned again in {pruned.steps:,} steps at {pruned.learning_rate:g}")
        yield f"pruned ({pruned.kind})", ", ".join(parts)


def _cpu(cpu: Cpu) -> str:
    cores = "1 core" if cpu.cores == 1 else f"{cpu.cores} cores"
    return ", ".join(filter(None, [cpu.model, cores, " ".join(cpu.isa)]))


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def served_of(plan: Plan) -> str:
    """Describe in a sentence the served variant and its difference from fp32."""
    served = f"{plan.variant} on {short_provider(plan.provider)}"
    checks = {(one.variant, one.provider): one for one in plan.checks}
    found = checks.get((plan.variant, plan.provider))
    if plan.variant == FP32 or found is None or found.accuracy_loss is None:
        return f"Served is {served}."
    return (
        f"Served is {served}: of {found.rows:,} test rows {found.label_flips or 0:,} get another label than from "
        f"fp32, and it loses {found.accuracy_loss:.2f} points of accuracy ({found.loss_low or 0.0:.2f} to "
        f"{found.loss_high or 0.0:.2f})."
    )


def commands_of(facts: Facts, revision: str, recipe_file: str) -> str:
    """Write the commands that repeat the run, a line each."""
    commit = re.fullmatch(r"([0-9a-f]{40})(-dirty)?", revision)
    tag, parent = facts.packaged.bento if facts.packaged else facts.recipe.name, facts.recipe.parent
    what = (
        f"retrain {shlex.quote(recipe_file)} --from {shlex.quote(parent)}"
        if parent
        else f"run {shlex.quote(recipe_file)}"
    )
    lines = [
        f"git checkout {commit[1]} && make install && . .venv/bin/activate" if commit else _requirement(revision),
        f"{_start(facts.training)} {what} --new",
        f"bentune serve {shlex.quote(tag)}",
        request_of(facts.recipe),
    ]
    return "\n".join(lines)


def request_of(recipe: Recipe) -> str:
    """Write the command that sends one input of the recipe's task to the served model."""
    return f"curl -s http://localhost:3000/predict {task_of(recipe).request}"


def _start(training: TrainResult | None) -> str:
    """Return the start of the command line, with the run's processes.

    docs/training/several-processes.md describes it.
    """
    processes = training.processes if training else 1
    if training and training.sharded:
        wrap = "--fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP"
        return f"accelerate launch --use_fsdp --fsdp_version 2 {wrap} --num_processes {processes} -m bentune"
    return f"torchrun --nproc-per-node {processes} -m bentune" if processes > 1 else "bentune"


def _requirement(revision: str) -> str:
    return f"pip install {shlex.quote('bentune[train]==' + revision.removeprefix('bentune '))}"
