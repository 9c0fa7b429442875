"""Predictor of one bundle on ONNX Runtime: it serves, scores files, and is checked by `verify`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from bentune.bundle.arrays import Float32s, Logits
from bentune.bundle.hardware import Cpu
from bentune.bundle.manifest import Bundle
from bentune.bundle.plan import model_file
from bentune.bundle.targets.target import Prediction
from service.engine.providers import available, open_session
from service.engine.runtime import choose
from service.tasks.registry import task_of
from service.tasks.task import Encoded, Feed, Task


class Session:
    """One ONNX Runtime session: `slots` threads may run it at a time, each on `threads` cores of its own."""

    def __init__(self, model_file: Path, provider: str, threads: int, slots: int = 1) -> None:
        """Load the graph.

        Raises BundleError when it cannot be loaded or the provider is missing.
        """
        self._session = open_session(model_file, provider, slots=slots, threads=threads)
        self._inputs = [node.name for node in self._session.get_inputs()]

    def run(self, batch: Feed) -> Logits:
        """Return the logits of a batch, float32 [rows, labels].

        Inputs that the graph does not take are left out.
        """
        logits: Logits = self._session.run(["logits"], {name: batch[name] for name in self._inputs})[0]
        return logits


class Predictor:
    """Task and session of one model."""

    def __init__(self, task: Task, session: Session, token_budget: int = 2048) -> None:
        """Take a task and a session.

        `token_budget` bounds the padded tokens of a batch in `score`.
        """
        self.task = task
        self.session = session
        self.token_budget = token_budget

    @classmethod
    def from_bundle(cls, bundle: Bundle, cpu: Cpu) -> Self:
        """Open the runtime of the plan for `cpu`, one batch at a time on all cores."""
        runtime, _ = choose(bundle.plan, cpu, available())
        session = Session(bundle.root / model_file(runtime.variant), runtime.provider, cpu.cores)
        return cls(task_of(bundle), session, runtime.token_budget)

    def logits(self, batch: Sequence[Encoded]) -> Logits:
        """Return the outputs of one batch, float32 [rows, labels], in label order."""
        return self.session.run(self.task.collate(batch))

    def scores(self, logits: Logits) -> Float32s:
        """Return the scores of outputs, float32 [rows, labels]."""
        return self.task.target.scores(logits)

    def score(self, texts: Sequence[tuple[str, str | None]]) -> list[list[Prediction]]:
        """Predict many inputs in their order, best label first; cut long texts.

        Inputs of similar length share a batch. Raises RequestError for an invalid image.
        """
        tokens = [
            self.task.encoder.encode(text, pair, truncate=True, field=f"input {row}")
            for row, (text, pair) in enumerate(texts)
        ]
        results: list[list[Prediction]] = [[] for _ in texts]
        for rows in batches_by_length([len(row) for row in tokens], self.token_budget):
            logits = self.logits([tokens[row] for row in rows])
            for row, scores, by in zip(rows, self.scores(logits), logits, strict=True):
                results[row] = self.task.target.ranked(scores, by=by)
        return results


def batches_by_length(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Group row numbers, so that rows of similar length share a batch.

    A batch of several rows has at most `token_budget` padded tokens.
    """
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= token_budget:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
