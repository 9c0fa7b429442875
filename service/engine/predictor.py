"""Runs a classifier with ONNX Runtime: the code that serves, scores files, and is proven by `verify`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from bentune.bundle.hardware import Cpu
from bentune.bundle.manifest import Bundle
from bentune.bundle.plan import model_file
from bentune.bundle.scores import Prediction, probabilities, ranked
from service.engine.providers import available, open_session
from service.engine.runtime import choose
from service.tasks.encoder import Encoded, Encoder, Feed, encoder_of, feed

Logits = npt.NDArray[np.float32]


class Session:
    """One ONNX Runtime session: `slots` threads may run it at a time, each on `threads` cores of its own."""

    def __init__(self, model_file: Path, provider: str, threads: int, slots: int = 1) -> None:
        """Load the graph. Raises BundleError when it cannot be loaded or the provider is missing."""
        self._session = open_session(model_file, provider, slots=slots, threads=threads)
        self._inputs = [node.name for node in self._session.get_inputs()]

    def run(self, batch: Feed) -> Logits:
        """Logits, float32 [rows, labels], of padded inputs; inputs that the graph does not take are left out."""
        logits: Logits = self._session.run(["logits"], {name: batch[name] for name in self._inputs})[0]
        return logits


class Predictor:
    """Tokenizer or image processor, session and labels of one classifier."""

    def __init__(
        self,
        tokenizer: Encoder,
        session: Session,
        labels: Sequence[str],
        token_budget: int = 2048,
        *,
        multi_label: bool = False,
    ) -> None:
        """`token_budget` bounds the padded tokens of a batch in `score`."""
        self.tokenizer = tokenizer
        self.session = session
        self.labels = list(labels)
        self.token_budget = token_budget
        self.multi_label = multi_label

    @classmethod
    def from_bundle(cls, bundle: Bundle, cpu: Cpu) -> Self:
        """What the plan chose for `cpu`, on all of its cores, a batch at a time."""
        runtime, _ = choose(bundle.plan, cpu, available())
        return cls(
            encoder_of(bundle),
            Session(bundle.root / model_file(runtime.variant), runtime.provider, cpu.cores),
            bundle.manifest.labels,
            runtime.token_budget,
            multi_label=bundle.manifest.multi_label,
        )

    def logits(self, batch: Sequence[Encoded]) -> Logits:
        """Logits, float32 [rows, labels], of one padded batch, in the order of the labels."""
        return self.session.run(feed(batch, self.tokenizer.settings))

    def probabilities(self, logits: Logits) -> Logits:
        """Of each label, float32 [rows, labels]: they sum to 1 unless a row may have any number of labels."""
        return probabilities(logits, multi_label=self.multi_label)

    def score(self, texts: Sequence[tuple[str, str | None]]) -> list[list[Prediction]]:
        """Predictions of many texts, pairs or images, best label first, in their order; long texts are truncated.

        Texts of like length share a batch. Raises RequestError for what is no image, where the model takes images.
        """
        tokens = [
            self.tokenizer.encode(text, pair, truncate=True, field=f"input {row}")
            for row, (text, pair) in enumerate(texts)
        ]
        results: list[list[Prediction]] = [[] for _ in texts]
        for rows in batches_by_length([len(row) for row in tokens], self.token_budget):
            logits = self.logits([tokens[row] for row in rows])
            for row, scores, by in zip(rows, self.probabilities(logits), logits, strict=True):
                results[row] = ranked(scores, self.labels, by=by)
        return results


def batches_by_length(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Row numbers grouped so that rows of like length share a batch of at most `token_budget` padded tokens."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= token_budget:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
