"""A tiny real model and rows that it can learn in seconds, for tests that need a whole run."""

import contextlib
import csv
import json
import random
from pathlib import Path
from typing import Any

import yaml

WORDS = {
    "animal": "cat dog horse bird fish cow sheep lion mouse fox".split(),
    "food": "bread cheese apple soup rice cake bean corn plum salt".split(),
    "tool": "hammer saw drill wrench nail screw file clamp axe plane".split(),
}
FILLER = "the a is was near under with very some and of it here there".split()


ANY = ("--set", "evaluate.minimum={accuracy: 0.0}")
"""Options for a model that need not have learned anything."""


class Quiet:
    """A reporter that says nothing but remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def task(self, description: str, total: int | None) -> Any:
        return contextlib.nullcontext(lambda steps: None)

    def say(self, renderable: Any) -> None:
        self.said.append(renderable)


def sentences(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Return (text, label) rows whose label is plain from the words.

    Lengths vary from a few to many words.
    """
    generator = random.Random(seed)
    rows = []
    for number in range(count):
        label = sorted(WORDS)[number % len(WORDS)]
        words = generator.choices(FILLER, k=generator.randint(1, 20)) + generator.choices(WORDS[label], k=3)
        generator.shuffle(words)
        rows.append((f"{' '.join(words)} {number}", label))
    return rows


def tagged(count: int, seed: int = 0) -> list[tuple[str, list[str]]]:
    """Return (text, labels) rows with none to three labels, plain from the words.

    Lengths vary from a few to many words.
    """
    generator = random.Random(seed)
    rows = []
    for number in range(count):
        labels = [label for place, label in enumerate(sorted(WORDS)) if number >> place & 1]
        words = generator.choices(FILLER, k=generator.randint(2, 12))
        words += [word for label in labels for word in generator.choices(WORDS[label], k=2)]
        generator.shuffle(words)
        rows.append((f"{' '.join(words)} {number}", labels))
    return rows


def write_tagged(path: Path, rows: list[tuple[str, list[str]]]) -> Path:
    path.write_text("".join(json.dumps({"text": text, "label": labels}) + "\n" for text, labels in rows))
    return path


def write_csv(path: Path, rows: list[tuple[str, str]], header: tuple[str, str] = ("text", "label")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def vocabulary() -> list[str]:
    """The tokens of the tiny model, by their numbers."""
    words = [word for group in WORDS.values() for word in group] + FILLER
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *"0123456789", *(f"##{d}" for d in range(10))]


def make_model(directory: Path, seed: int = 0) -> Path:
    """A BERT of two layers and its tokenizer, in the layout of a hub repository."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(seed)
    directory.mkdir(parents=True, exist_ok=True)
    tokens = vocabulary()
    (directory / "vocab.txt").write_text("\n".join(tokens) + "\n")
    BertTokenizerFast(vocab_file=str(directory / "vocab.txt"), model_max_length=64).save_pretrained(directory)
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.1,  # so that random weights carry enough signal to learn from
    )
    BertModel(config).save_pretrained(directory, safe_serialization=True)
    return directory


def write_recipe(path: Path, model: Path | str, source: Path | str, **more: Any) -> Path:
    """A recipe that trains the tiny model in a few seconds."""
    recipe = {
        "task": "text-classification",
        "model": str(model),
        "data": {"source": str(source)},
        "max_tokens": 24,
        "method": "full",
        "train": {"epochs": 10, "learning_rate": 0.005, "checkpoint_steps": 20},
        "verify": {"rows": 40, "golden_rows": 12},
        "evaluate": {"resamples": 200},
        # fp32 alone, so that every run chooses the same; what tests variants names them.
        "plan": {"seconds": 0.05, "rows": 60, "batch_rows": 16, "calibration_rows": 8, "variants": []},
    } | more
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path
