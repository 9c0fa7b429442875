"""Labels, tokenizers and image processors in the directories of trained, merged and exported models."""

import json
from collections.abc import Mapping
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from bentune.bundle.targets.registry import target_in as target_of_entries
from bentune.bundle.targets.target import Target
from training.pipeline.layout import CalibrateFiles, MergeFiles, TrainFiles
from training.tasks.image.processor import FILE as PREPROCESSOR
from training.tasks.image.processor import ImageProcessor
from training.tasks.logits import Processor


def labels_of(trained: Path) -> list[str]:
    """Read the labels of the train stage, in the order of the logits."""
    labels: list[str] = json.loads(TrainFiles(trained).labels.read_text(encoding="utf-8"))
    return labels


def target_in(directory: Path) -> Target:
    """Read the target that the data stage wrote, or the train stage copied."""
    return target_of_entries(json.loads(TrainFiles(directory).target.read_text(encoding="utf-8")))


def processor_in(directory: Path) -> Processor:
    """Load the tokenizer or the image processor that was saved in a directory."""
    if (directory / PREPROCESSOR).is_file():
        return ImageProcessor.saved(directory)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(directory, use_fast=True)
    return tokenizer


def tokenizer_of(trained: Path) -> Processor:
    """Load the tokenizer or the image processor that the train stage saved."""
    return processor_in(TrainFiles(trained).tokenizer)


def config_labels(model: Path) -> list[str]:
    """Read the labels of a saved model's config.json, in the order of the logits."""
    names = AutoConfig.from_pretrained(model).id2label
    return [names[index] for index in sorted(names)]


def finished(stages: Mapping[str, Path]) -> Path:
    """Return the served model: `calibrate`'s where the recipe has it, else `merge`'s."""
    if CalibrateFiles.stage in stages:
        return CalibrateFiles(stages[CalibrateFiles.stage]).model
    return MergeFiles(stages[MergeFiles.stage]).model
