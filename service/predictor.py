"""Runs a text classifier with ONNX Runtime: the code that serves, scores files, and is proven by `verify`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from service.contract import Bundle
from service.errors import BundleError
from service.scores import Prediction, probabilities, ranked
from service.tokens import TextTokenizer, Tokens, pad

Logits = npt.NDArray[np.float32]


class Session:
    """One ONNX Runtime session with a fixed number of threads."""

    def __init__(self, model_file: Path, provider: str, threads: int) -> None:
        """Load the graph.

        ONNX Runtime sizes its pool from the host's cores, not from the cgroup (onnxruntime issue 29510), so the
        threads are always given. Raises BundleError when the file cannot be loaded or the provider is missing.
        """
        if provider not in ort.get_available_providers():
            raise BundleError(f"{provider} is not installed; available: {', '.join(ort.get_available_providers())}")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # An idle spinning thread burns a core that another slot, or another pod, could use.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(str(model_file), options, providers=[provider])
        except Exception as error:  # ONNX Runtime has no common base for its load errors
            raise BundleError(f"{model_file} cannot be loaded: {error}") from error
        self._inputs = [node.name for node in self._session.get_inputs()]

    def run(self, feed: dict[str, npt.NDArray[np.int64]]) -> Logits:
        """Logits, float32 [rows, labels], of padded inputs; inputs that the graph does not take are left out."""
        logits: Logits = self._session.run(["logits"], {name: feed[name] for name in self._inputs})[0]
        return logits


class Predictor:
    """Tokenizer, session and labels of one classifier."""

    def __init__(self, tokenizer: TextTokenizer, session: Session, labels: Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.session = session
        self.labels = list(labels)

    @classmethod
    def from_bundle(cls, bundle: Bundle, threads: int) -> Self:
        """The variant and provider that the bundle's plan chose."""
        return cls(
            TextTokenizer(
                bundle.root / "processor/tokenizer.json", bundle.processor, bundle.manifest.limits.max_tokens
            ),
            Session(bundle.model_path, bundle.plan.provider, threads),
            bundle.manifest.labels,
        )

    def logits(self, batch: Sequence[Tokens]) -> Logits:
        """Logits, float32 [rows, labels], of one padded batch, in the order of the labels."""
        return self.session.run(pad(batch, self.tokenizer.settings))

    def score(self, texts: Sequence[tuple[str, str | None]], token_budget: int = 2048) -> list[list[Prediction]]:
        """Predictions of many texts or pairs, best label first, in their order; long ones are truncated.

        Texts of like length share a batch of at most `token_budget` padded tokens.
        """
        tokens = [self.tokenizer.encode(text, pair, truncate=True) for text, pair in texts]
        results: list[list[Prediction]] = [[] for _ in texts]
        for rows in batches_by_length([len(row) for row in tokens], token_budget):
            scores = probabilities(self.logits([tokens[row] for row in rows]))
            for row, row_scores in zip(rows, scores, strict=True):
                results[row] = ranked(row_scores, self.labels)
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
