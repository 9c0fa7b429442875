"""Models as the methods prepare, train and save them, in the time of a blink; and tiny ones of other families."""

from pathlib import Path
from typing import Any

import torch
from tiny import make_model
from transformers import (
    AutoConfig,
    AutoModel,
    BertForMaskedLM,
    DistilBertConfig,
    GPT2Config,
    ModernBertConfig,
    PretrainedConfig,
    RobertaConfig,
)

from bentune.bundle.files import write_json
from training.recipe.recipe import Recipe
from training.tasks.base.load import base_digest, load_base
from training.train.methods import prepare, save_tuned

LABELS = ["animal", "food", "tool"]
_SHAPE: dict[str, Any] = {"vocab_size": 80, "max_position_embeddings": 64, "pad_token_id": 0}
_SIZE: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
FAMILIES: dict[str, PretrainedConfig] = {
    "distilbert": DistilBertConfig(**_SHAPE, dim=32, n_layers=3, n_heads=2, hidden_dim=64),
    "roberta": RobertaConfig(**_SHAPE, **_SIZE),
    "modernbert": ModernBertConfig(**_SHAPE, **_SIZE),
    "gpt2": GPT2Config(vocab_size=80, n_positions=64, n_embd=32, n_layer=3, n_head=2, pad_token_id=0),
}


def make_family(name: str, directory: Path) -> Path:
    """A model of three layers of another family than BERT, without a head."""
    torch.manual_seed(0)
    AutoModel.from_config(FAMILIES[name]).save_pretrained(directory)
    return directory


def make_masked(directory: Path) -> Path:
    """A masked language model: its checkpoint has no pooler."""
    model = make_model(directory)
    BertForMaskedLM(AutoConfig.from_pretrained(model)).save_pretrained(model)
    return model


def recipe(model: Path, method: Any) -> Recipe:
    least = {"name": "x", "task": "text-classification", "data": {"source": "s"}, "max_tokens": 24}
    return Recipe.model_validate(least | {"model": str(model), "method": method})


def prepared(asked: Recipe) -> Any:
    return prepare(load_base(asked, LABELS), asked.method)


def trained_names(model: torch.nn.Module) -> set[str]:
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def disturb(model: torch.nn.Module) -> None:
    """Give every trainable weight another value, as training would."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.1)


def logits(model: Any) -> torch.Tensor:
    ids = torch.tensor([[2, 5, 17, 8, 3], [2, 30, 31, 9, 3]])
    with torch.inference_mode():
        result: torch.Tensor = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return result


def saved(asked: Recipe, directory: Path) -> Any:
    """Prepare, disturb and save a model as the train stage does; returns it."""
    base = load_base(asked, LABELS)
    digest = base_digest(asked, base.model)
    model = prepare(base, asked.method)
    disturb(model)
    directory.mkdir(exist_ok=True)
    save_tuned(model, asked.method, directory)
    write_json(directory / "base.json", {"source": asked.model, "sha256": digest})
    return model
