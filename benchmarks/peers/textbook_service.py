"""Textbook service: a text classifier, written as in BentoML's and Optimum's documentation."""

import os
from typing import Any

import bentoml

MODEL = os.environ["TEXTBOOK_MODEL"]
MAX_TOKENS = int(os.environ["TEXTBOOK_MAX_TOKENS"])


# One worker and a timeout of 60 s are BentoML's defaults; its SentenceTransformers example sets the timeout.
@bentoml.service(traffic={"timeout": 60})
class TextbookClassifier:
    """An ONNX text classifier behind BentoML's adaptive batching."""

    def __init__(self) -> None:
        from optimum.onnxruntime import ORTModelForSequenceClassification
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(MODEL)
        # Optimum's documentation sets neither a provider nor session options: by default ONNX Runtime uses all cores
        # and every graph optimization.
        self.model = ORTModelForSequenceClassification.from_pretrained(MODEL)

    # 100 and 60,000 ms are the defaults of BentoML's decorator, which the examples of its adaptive batching page keep.
    # 100 counts texts, not requests: a longer list is split, and its parts are answered together.
    @bentoml.api(batchable=True, max_batch_size=100, max_latency_ms=60_000)
    def predict(self, inputs: list[str]) -> list[dict[str, Any]]:
        """Return the most probable label of each text and its probability."""
        encoded = self.tokenizer(inputs, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        scores, indices = self.model(**encoded).logits.softmax(dim=-1).max(dim=-1)
        return [
            {"label": self.model.config.id2label[index], "score": score}
            for index, score in zip(indices.tolist(), scores.tolist(), strict=True)
        ]
