"""Rehearsal: a few measured steps of a training, with its own model and rows."""

import shutil
import time
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset
from torch.utils.data import Subset
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from bentune.bundle.arrays import Logits
from bentune.bundle.hardware import visible_cores
from training.dry_run.estimate import Phase, Rehearsal, Timed
from training.dry_run.process import OutOfMemory, peak_bytes
from training.dry_run.step_plan import GROUPS, StepPlan, padded_tokens, step_plan
from training.pipeline.follow import Silent
from training.pipeline.stage import Context, Reporter
from training.plan.contention import CpuClocks, contention
from training.recipe.recipe import Recipe
from training.tasks.base.load import load_base
from training.tasks.text.tokenized import lengths_of
from training.train.compress.distillation import ANSWERS
from training.train.compress.pruning import CHECKPOINTS as PRUNED_CHECKPOINTS
from training.train.compress.pruning import dense_result, tuned_again
from training.train.compress.teacher import open_teacher
from training.train.fit.arguments import device_batch_size, evaluation_steps
from training.train.fit.fit import trainer_of
from training.train.fit.rows import TrainingRows
from training.train.fit.sampler import LengthSampler
from training.train.fit.trainer import RowTrainer, last_whole_checkpoint, step_of
from training.train.methods import count, prepare, save_tuned
from training.train.stage import CHECKPOINTS, TOKENS, TrainingInputs, prepare_training

ENOUGH_SECONDS = 15.0
"""Time after which enough steps are measured; on slow machines LEAST_PASSES take longer."""

WARM_UP, LEAST_PASSES, MOST_PASSES = 2, 2, 40
VALIDATION_BATCHES = 10
TEACHER_ROWS = 64
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "Unable to allocate")


def rehearse(recipe: Recipe, data: Path, work: Path, partial: Path | None) -> Rehearsal:
    """Prepare training in `work` and measure some of its steps.

    `partial` is the stage directory of an interrupted run. Raises OutOfMemory when the step with the longest rows does
    not fit into memory, and every error that the train stage raises before its first step.
    """
    try:
        return _rehearse(recipe, data, work, partial)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY):
            raise OutOfMemory(str(error).splitlines()[0]) from error
        raise


def _rehearse(recipe: Recipe, data: Path, work: Path, partial: Path | None) -> Rehearsal:
    told, teacher, start = _Listener(), _SampledTeacher(), time.monotonic()
    ready = prepare_training(Context(recipe, work, {"data": data}, told), ask=teacher)
    asked = partial is not None and (partial / ANSWERS).is_file()
    started = time.monotonic() - start - teacher.took + (0.0 if asked else teacher.seconds)
    phases, clocks = [], CpuClocks.read()
    if partial is None or dense_result(partial) is None:
        phases.append(_phase("training", ready.model, recipe, ready, work, _done(partial, CHECKPOINTS)))
    start = time.monotonic()
    saved = work / "saved"
    saved.mkdir()
    save_tuned(ready.model, recipe.method, saved)
    save_seconds = time.monotonic() - start
    if recipe.prune is not None:
        again = tuned_again(recipe)
        # The model has its size before pruning, because the removed weights are not known yet.
        model = prepare(load_base(recipe, ready.labels), again.method)
        phases.append(_phase("after pruning", model, again, ready, work, _done(partial, PRUNED_CHECKPOINTS)))
    others = contention(clocks, CpuClocks.read(), visible_cores())
    return Rehearsal(
        rows=len(ready.rows),
        start_seconds=started,
        phases=phases,
        save_seconds=save_seconds,
        saved_bytes=_size(saved),
        tokens_bytes=_size(work / TOKENS),
        held_bytes=sum(_size(partial / name) for name in (CHECKPOINTS, PRUNED_CHECKPOINTS, TOKENS)) if partial else 0,
        model_bytes=4 * count(ready.model).total,
        peak_bytes=peak_bytes(),
        gpu_peak_bytes=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
        taken=others,
        said=told.said,
    )


def _phase(name: str, model: torch.nn.Module, recipe: Recipe, ready: TrainingInputs, work: Path, done: int) -> Phase:
    plan = step_plan(recipe, lengths_of(ready.rows))
    steps, checkpoints = len(plan.tokens), work / "rehearsal"
    trainer = trainer_of(model, ready.tokenizer, recipe, ready.rows, ready.validation, checkpoints, ready.loss)
    drawn = _MeasuredSteps(plan, recipe.seed)
    clock = _StepTimer(plan, drawn)
    trainer.sampler = drawn
    trainer.remove_callback(EarlyStoppingCallback)
    trainer.add_callback(clock)
    trainer.args.max_steps = len(drawn) // plan.batch
    trainer.args.load_best_model_at_end = False
    trainer.args.save_strategy, trainer.args.eval_strategy = SaveStrategy.NO, IntervalStrategy.NO
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # metrics warn about rows that lack a label
        trainer.train()
        evaluation_seconds = _evaluation(trainer, recipe)
    checkpoint_bytes = _size(checkpoints)
    shutil.rmtree(checkpoints)
    ends = np.arange(done + 1, steps + 1)
    every = evaluation_steps(recipe, len(ready.rows))
    evaluated = ((ends % every == 0) | (ends == steps)) if ready.validation is not None else np.zeros(len(ends), bool)
    saved = evaluated | (ends % recipe.train.checkpoint_steps == 0) | (ends == steps)
    left = np.bincount(plan.groups[done:], weights=plan.tokens[done:], minlength=GROUPS)
    return Phase(
        name=name,
        steps=steps,
        done=done,
        left=left.astype(int).tolist(),
        timed=clock.timed,
        evaluations=int(evaluated.sum()),
        evaluation_seconds=evaluation_seconds,
        saves=int(saved.sum()),
        save_seconds=clock.save_seconds,
        checkpoint_bytes=checkpoint_bytes,
    )


def _evaluation(trainer: RowTrainer, recipe: Recipe) -> float:
    """Extrapolate an evaluation's seconds from batches of every length.

    Returns 0 without a validation set.
    """
    rows = trainer.eval_dataset
    if rows is None:
        return 0.0
    batch, lengths = device_batch_size(recipe, 1), lengths_of(rows).astype(np.int64)
    batches = -(-len(lengths) // batch)
    chosen = np.unique(np.linspace(0, batches - 1, VALIDATION_BATCHES).round().astype(int))
    some = np.concatenate([np.arange(len(lengths))[one * batch : (one + 1) * batch] for one in chosen])
    trainer.evaluate(_of(rows, some[-batch:]))
    start = time.monotonic()
    trainer.evaluate(_of(rows, some))
    return (time.monotonic() - start) * padded_tokens(lengths, batch) / padded_tokens(lengths[some], batch)


def _of(rows: Any, numbers: npt.NDArray[np.int64]) -> Any:
    return rows.select(numbers) if isinstance(rows, Dataset) else Subset(rows, numbers.tolist())


class _MeasuredSteps(LengthSampler):
    """Sampler of the longest step twice, to reach the peak memory, then of a step of each group in turns."""

    def __init__(self, plan: StepPlan, seed: int) -> None:
        super().__init__(plan.batch, plan.lengths, seed)
        passes = list(islice(plan.passes(seed), MOST_PASSES))
        self.steps = [(None, plan.longest)] * WARM_UP + [step for one in passes for step in one]
        self.a_pass = len(passes[0])

    def __len__(self) -> int:
        return self.batch * len(self.steps)

    def __iter__(self) -> Iterator[int]:
        for _, rows in self.steps:
            yield from np.resize(rows, self.batch).tolist()


class _StepTimer(TrainerCallback):
    """Timer of each step, from the end of the step before it, and of the checkpoint after the last step."""

    def __init__(self, plan: StepPlan, drawn: _MeasuredSteps) -> None:
        self.plan = plan
        self.drawn = drawn
        self.timed: list[Timed] = []
        self.last = 0.0
        self.save_seconds = 0.0

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:  # noqa: ARG002
        """Record the step's time, and stop after enough passes."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now, number = time.monotonic(), state.global_step - 1
        group, rows = self.drawn.steps[number]
        if group is not None:
            tokens = padded_tokens(self.plan.lengths[np.resize(rows, self.plan.batch)], self.plan.micro_batch)
            self.timed.append(Timed(group, tokens, now - self.last))
        passes, rest = divmod(len(self.timed), self.drawn.a_pass)
        enough = passes >= LEAST_PASSES and sum(step.seconds for step in self.timed) >= ENOUGH_SECONDS
        control.should_training_stop = rest == 0 and (enough or passes == MOST_PASSES)
        control.should_save = control.should_training_stop
        self.last = time.monotonic()

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:  # noqa: ARG002
        """Record the checkpoint's time."""
        self.save_seconds = time.monotonic() - self.last


class _SampledTeacher:
    """Teacher that computes logits for a few rows in `took` seconds; `seconds` is the expected time for all rows."""

    def __init__(self) -> None:
        self.seconds = self.took = 0.0

    def __call__(
        self,
        recipe: Recipe,
        rows: TrainingRows,
        labels: list[str],
        work: Path,  # noqa: ARG002
        report: Reporter,  # noqa: ARG002
    ) -> tuple[Logits, None]:
        chosen = np.random.default_rng(recipe.seed).permutation(len(rows))[:TEACHER_ROWS]
        teacher = open_teacher(recipe)
        start = time.monotonic()
        answers = np.zeros((len(rows), len(labels)), dtype=np.float32)
        answers[chosen] = teacher.logits(rows.take(chosen), labels, lambda _: None)
        self.took = time.monotonic() - start
        self.seconds = self.took * len(rows) / len(chosen)
        return answers, None


class _Listener(Silent):
    """Reporter that collects messages, for the parent process."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def say(self, renderable: Any) -> None:
        """Collect a message."""
        self.said.append(renderable)


def _done(partial: Path | None, name: str) -> int:
    checkpoint = last_whole_checkpoint(partial / name) if partial is not None else None
    return step_of(checkpoint) if checkpoint is not None else 0


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
