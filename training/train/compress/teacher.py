"""Teacher of a distillation: a fine-tuned classifier, with logits in the order of the student's labels."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bentune.bundle.arrays import Logits
from bentune.bundle.errors import InputError
from bentune.bundle.hardware import visible_cores
from bentune.bundle.manifest import Bundle, Limits
from bentune.bundle.plan import CPU, FP32, model_file
from service.engine.predictor import Predictor, Session, batches_by_length
from service.tasks.registry import task_class
from training.pipeline.fingerprints import TEACHER_KEY, teacher_bundle
from training.recipe.recipe import Recipe
from training.tasks.base.head import match_labels
from training.tasks.base.load import class_names, load_base, load_tokenizer
from training.tasks.logits import torch_logits
from training.tasks.rows import Rows

TOKEN_BUDGET = 2048
SHOWN = 5

_Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Teacher:
    """Labels and model of a teacher; `answer` returns logits, float32 [rows, its labels], in the order of the rows."""

    labels: list[str]
    answer: Callable[[Rows, _Advance], Logits]

    def logits(self, rows: Rows, labels: Sequence[str], advance: _Advance) -> Logits:
        """Compute logits in the order of the given labels, matched by name or spelling.

        The logits are float32 [rows, labels]. Labels that only the teacher has are left out, as if their probability
        were 0. Raises InputError when the teacher lacks a given label, or when its logits are not finite.
        """
        match = match_labels(labels, self.labels)
        if missing := [label for number, label in enumerate(labels) if number not in match.rows]:
            raise InputError(
                f"{TEACHER_KEY}: the teacher lacks the label {_shown(missing)} of the data; it has "
                f"{_shown(self.labels)}: rename the data's labels with data.labels, or give a teacher of the same "
                "labels"
            )
        logits = self.answer(rows, advance)
        if not np.isfinite(logits).all():
            raise InputError(f"{TEACHER_KEY}: the teacher gives logits that are not finite: give another one")
        return logits[:, [match.rows[number] for number in range(len(labels))]]


def open_teacher(recipe: Recipe) -> Teacher:
    """Open the teacher that the recipe's `distill` names, with its own tokenizer.

    Of a bundle, the fp32 model is used, which `verify` compared with the trained model. Raises InputError when there is
    no such teacher, or when it has no trained head.
    """
    if recipe.distill is None:
        raise ValueError("the recipe has no `distill`")
    bundle = teacher_bundle(recipe.distill.teacher)
    if bundle is not None:
        return _stored(bundle, recipe)
    with _about_the_teacher():
        return _saved(recipe, recipe.distill.teacher, recipe.distill.max_tokens or recipe.max_tokens)


def _stored(bundle: Bundle, recipe: Recipe) -> Teacher:
    if bundle.manifest.task != recipe.task:
        raise InputError(f"{TEACHER_KEY}: {bundle.tag} does {bundle.manifest.task}, the recipe's task is {recipe.task}")
    most = bundle.manifest.limits.max_tokens
    wanted = (recipe.distill and recipe.distill.max_tokens) or most
    if wanted > most:
        raise InputError(f"distill.max_tokens: {wanted} is more than the maximum of {bundle.tag}; give at most {most}")
    manifest = bundle.manifest
    task = task_class(manifest.task).open(
        bundle.root / "processor", bundle.processor, Limits(max_tokens=wanted), manifest.target, manifest.columns
    )
    predictor = Predictor(task, Session(bundle.root / model_file(FP32), CPU, visible_cores()))

    def answer(rows: Rows, advance: _Advance) -> Logits:
        pairs = rows.pairs if rows.pairs is not None else [None] * len(rows)
        tokens = [task.encoder.encode(*texts, truncate=True) for texts in zip(rows.texts, pairs, strict=True)]
        logits = np.empty((len(rows), len(manifest.labels)), dtype=np.float32)
        for batch in batches_by_length([len(row) for row in tokens], TOKEN_BUDGET):
            logits[batch] = predictor.logits([tokens[row] for row in batch])
            advance(len(batch))
        return logits

    return Teacher(manifest.labels, answer)


def _saved(recipe: Recipe, source: str, max_tokens: int) -> Teacher:
    as_model = recipe.model_copy(update={"model": source, "max_tokens": max_tokens, "distill": None})
    tokenizer = load_tokenizer(as_model)
    labels = class_names(as_model)
    loaded = load_base(as_model, labels)
    if loaded.fresh:
        raise InputError(
            f"{source} has no weights for its {loaded.fresh[0]}: give a classifier that was fine-tuned before"
        )

    def answer(rows: Rows, advance: _Advance) -> Logits:
        return torch_logits(loaded.model, tokenizer, rows, max_tokens, advance)[0]

    return Teacher(labels, answer)


@contextlib.contextmanager
def _about_the_teacher() -> Iterator[None]:
    """Rewrite errors about `model` so that they name the teacher."""
    try:
        yield
    except InputError as error:
        said = str(error).removeprefix("model: ").replace("max_tokens: ", "distill.max_tokens: ", 1)
        raise InputError(said if said.startswith(("distill.", TEACHER_KEY)) else f"{TEACHER_KEY}: {said}") from error


def _shown(labels: Sequence[str]) -> str:
    return ", ".join(map(repr, labels[:SHOWN])) + (", ..." if len(labels) > SHOWN else "")
