"""Fixtures that many tests share: a tiny real model, rows that it can learn, and one finished run on them."""

import atexit
import csv
import os
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

# BentoML reads this when it is first imported: the tests never touch the user's stores.
_HOME = tempfile.mkdtemp(prefix="bentune-tests-")
os.environ |= {"BENTOML_HOME": _HOME, "BENTOML_DO_NOT_TRACK": "1", "HF_HOME": f"{_HOME}/hf"}
# Threads that spin while they wait make two processes on two cores ten times slower than one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)

WORDS = {
    "animal": "cat dog horse bird fish cow sheep lion mouse fox".split(),
    "food": "bread cheese apple soup rice cake bean corn plum salt".split(),
    "tool": "hammer saw drill wrench nail screw file clamp axe plane".split(),
}
FILLER = "the a is was near under with very some and of it here there".split()


class Quiet:
    """A reporter that says nothing but remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def task(self, description: str, total: int | None) -> Any:
        import contextlib

        return contextlib.nullcontext(lambda steps: None)

    def say(self, renderable: Any) -> None:
        self.said.append(renderable)


def sentences(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """(text, label) rows whose label is plain from the words; lengths vary from a few to many words."""
    generator = random.Random(seed)
    rows = []
    for number in range(count):
        label = sorted(WORDS)[number % len(WORDS)]
        words = generator.choices(FILLER, k=generator.randint(1, 20)) + generator.choices(WORDS[label], k=3)
        generator.shuffle(words)
        rows.append((f"{' '.join(words)} {number}", label))
    return rows


def write_csv(path: Path, rows: list[tuple[str, str]], header: tuple[str, str] = ("text", "label")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def make_model(directory: Path, seed: int = 0) -> Path:
    """A BERT of two layers and its tokenizer, in the layout of a hub repository."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(seed)
    directory.mkdir(parents=True, exist_ok=True)
    words = [word for group in WORDS.values() for word in group] + FILLER
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *"0123456789", *(f"##{d}" for d in range(10))]
    (directory / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    BertTokenizerFast(vocab_file=str(directory / "vocab.txt"), model_max_length=64).save_pretrained(directory)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(directory, safe_serialization=True)
    return directory


def write_recipe(path: Path, model: Path | str, source: Path | str, **more: Any) -> Path:
    """A recipe that trains the tiny model in a few seconds."""
    import yaml

    recipe = {
        "task": "text-classification",
        "model": str(model),
        "data": {"source": str(source)},
        "max_tokens": 24,
        "method": "full",
        "train": {"epochs": 10, "learning_rate": 0.003, "checkpoint_steps": 20},
        "verify": {"rows": 40, "golden_rows": 12},
        "evaluate": {"resamples": 200},
    } | more
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "tiny-bert")


@pytest.fixture(scope="session")
def tiny_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("data") / "rows.csv", sentences(300))


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_csv: Path) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipe") / "tiny.yaml", tiny_model, tiny_csv)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Path:
    """Directory of a run of the tiny recipe with every stage done; treat it as read-only (copy it to change it)."""
    from training.pipeline import run_all
    from training.recipe_file import load_recipe
    from training.run_dir import RunDir

    recipe = load_recipe(tiny_recipe).recipe
    with RunDir.open(tmp_path_factory.mktemp("runs"), recipe.name) as run:
        list(run_all(recipe, run, Quiet()))
        return run.root


@pytest.fixture(scope="session")
def tiny_tag(tiny_run: Path) -> str:
    """Tag of the stored bundle, and of the Bento, that the tiny run made."""
    import json

    artifacts: dict[str, str] = json.loads((tiny_run / "package/artifacts.json").read_text())
    return artifacts["model"]


@pytest.fixture(scope="session")
def tiny_bundle(tiny_run: Path) -> Path:
    """Directory of the stored bundle; treat it as read-only (copy it to change it)."""
    import json

    return Path(json.loads((tiny_run / "package/artifacts.json").read_text())["bundle"])
