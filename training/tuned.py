"""Reads labels and tokenizers from the directories of trained, merged and exported models."""

import json
from collections.abc import Mapping
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase


def labels_of(trained: Path) -> list[str]:
    """The labels that the train stage learned, in the order of the logits."""
    labels: list[str] = json.loads((trained / "labels.json").read_text(encoding="utf-8"))
    return labels


def tokenizer_of(trained: Path) -> PreTrainedTokenizerBase:
    """The tokenizer that the train stage saved."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(trained / "tokenizer", use_fast=True)
    return tokenizer


def config_labels(model: Path) -> list[str]:
    """The labels of a saved model's config.json, in the order of the logits."""
    names = AutoConfig.from_pretrained(model).id2label
    return [names[index] for index in sorted(names)]


def finished(stages: Mapping[str, Path]) -> Path:
    """The stage whose model is served: `calibrate`, where the recipe has it, or else `merge`."""
    return stages.get("calibrate") or stages["merge"]
