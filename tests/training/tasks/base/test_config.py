"""Configs that a newer transformers saved: the same model, or a refusal that names the key, and never another model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from bentune.bundle.errors import InputError
from training.recipe.recipe import Recipe
from training.tasks.base.config import load_config
from training.tasks.base.load import load_base, load_tokenizer

LABELS = ["a", "b"]
SMALL = {
    "vocab_size": 60,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "initializer_range": 0.5,
}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 2.0} | {
    "original_max_position_embeddings": 32
}


def saved(place: Path, kind: str, **more: Any) -> Any:
    torch.manual_seed(0)
    given = {key: value for key, value in (SMALL | more).items() if value is not None}
    config = AutoConfig.for_model(kind, **given, id2label=dict(enumerate(LABELS)))
    model = AutoModelForSequenceClassification.from_config(config).eval()
    model.save_pretrained(place)
    return model


def as_newer(place: Path, *without: str, **keys: Any) -> None:
    """Write config.json as transformers 5 does."""
    config = json.loads((place / "config.json").read_text())
    config = {key: value for key, value in config.items() if key not in without} | keys
    (place / "config.json").write_text(json.dumps(config | {"transformers_version": "5.3.0"}))


def loaded(place: Path) -> Any:
    recipe = {"name": "x", "task": "text-classification", "model": str(place), "data": {"source": "s"}}
    return load_base(Recipe.model_validate(recipe), LABELS).model.eval()


def logits(model: Any) -> torch.Tensor:
    ids = torch.randint(1, 60, (2, 100), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return found


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3"])
def test_the_rotary_base_is_the_one_that_was_saved(kind: str, tmp_path: Path) -> None:
    before = saved(tmp_path, kind, rope_theta=500.0)
    as_newer(tmp_path, "rope_theta", rope_parameters={"rope_theta": 500.0, "rope_type": "default"})
    assert AutoConfig.from_pretrained(tmp_path).rope_theta == 10_000.0, (
        "a transformers that knows it needs none of this"
    )
    torch.testing.assert_close(logits(loaded(tmp_path)), logits(before))


def test_so_is_its_scaling(tmp_path: Path) -> None:
    before = saved(tmp_path, "llama", rope_theta=500.0, rope_scaling=LLAMA3)
    as_newer(tmp_path, "rope_theta", "rope_scaling", rope_parameters=LLAMA3 | {"rope_theta": 500.0})
    torch.testing.assert_close(logits(loaded(tmp_path)), logits(before))


def test_kinds_of_layers_have_bases_of_their_own(tmp_path: Path) -> None:
    bases = {"global_rope_theta": 700.0, "local_rope_theta": 300.0}
    before = saved(tmp_path, "modernbert", num_key_value_heads=None, cls_token_id=1, sep_token_id=2, **bases)
    theirs = {"full_attention": 700.0, "sliding_attention": 300.0}
    parameters = {kind: {"rope_type": "default", "rope_theta": base} for kind, base in theirs.items()}
    as_newer(tmp_path, *bases, rope_parameters=parameters)
    torch.testing.assert_close(logits(loaded(tmp_path)), logits(before))


@pytest.mark.parametrize(
    "parameters",
    [
        {"rope_type": "default"},
        {"rope_theta": 500.0, "rope_type": "something-new"},
        {"rope_theta": 500.0, "rope_type": "longrope", "long_factor": [1.0] * 4, "short_factor": [1.0] * 4},
        {"rope_theta": 500.0, "partial_rotary_factor": 0.25},
        {"full_attention": {"rope_theta": 500.0}, "sliding_attention": {"rope_theta": 1.0}},
        "text",
    ],
)
def test_what_has_no_place_here_is_refused(parameters: Any, tmp_path: Path) -> None:
    saved(tmp_path, "llama")
    as_newer(tmp_path, "rope_theta", rope_parameters=parameters)
    with pytest.raises(
        InputError, match=r"rotary parameters \(rope_parameters\) that transformers .* has no place for"
    ):
        loaded(tmp_path)


def test_a_key_of_a_newer_version_that_would_be_left_out_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, "llama")
    as_newer(tmp_path, attention_sinks=4, not_asked_for=None, off=False)
    with pytest.raises(
        InputError, match=r"saved by transformers 5\.3\.0, and its config\.json has attention_sinks, which"
    ):
        loaded(tmp_path)
    # What this version, or an older one, saved may have keys of its owner's.
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"transformers_version": "4.30.0"}))
    assert load_config("x", str(tmp_path), {}).attention_sinks == 4


def test_a_tokenizer_of_a_newer_version_is_read_from_its_file(tiny_model: Path, tmp_path: Path) -> None:
    import shutil

    place = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    recipe = {
        "name": "x",
        "task": "text-classification",
        "model": str(place),
        "data": {"source": "s"},
        "max_tokens": 24,
    }
    asked = Recipe.model_validate(recipe)
    before = load_tokenizer(asked)("a cat near the dog")["input_ids"]
    file = place / "tokenizer_config.json"
    newer = {"tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["[MASK]"]}
    file.write_text(json.dumps(json.loads(file.read_text()) | newer))
    assert load_tokenizer(asked)("a cat near the dog")["input_ids"] == before
