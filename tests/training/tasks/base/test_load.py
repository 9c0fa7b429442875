"""The base model: what can be loaded, what is refused and why, and that a hostile directory runs nothing."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import LABELS, batch, classifier
from safetensors.torch import load_file, save_file
from tiny import make_model
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
)

from bentune.bundle.errors import InputError
from training.recipe.file import load_recipe
from training.recipe.recipe import Recipe
from training.tasks.base.load import base_digest, load_base, load_tokenizer, with_fewer_layers


def recipe(model: Path | str, **more: Any) -> Recipe:
    least = {"name": "x", "task": "text-classification", "data": {"source": "s"}, "max_tokens": 24}
    return Recipe.model_validate(least | {"model": str(model)} | more)


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to break."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def edit(file: Path, **values: Any) -> None:
    content = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in (content | values).items() if value is not ...}))


def refused(load: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        load()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_head_is_fresh_and_follows_from_the_seed(tiny_model: Path) -> None:
    bases = [load_base(recipe(tiny_model, seed=seed), LABELS) for seed in (1, 1, 2)]
    assert [base.fresh for base in bases] == [["classifier"]] * 3
    heads = [base.model.classifier.weight for base in bases]
    assert heads[0].shape == (3, 32)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    pretrained = load_file(tiny_model / "model.safetensors")["embeddings.word_embeddings.weight"]
    assert all(torch.equal(base.model.bert.embeddings.word_embeddings.weight, pretrained) for base in bases)
    config = bases[0].model.config
    assert config.id2label == dict(enumerate(LABELS))
    assert config.label2id == {label: index for index, label in enumerate(LABELS)}


def test_a_head_of_another_size_is_replaced(model: Path) -> None:
    BertForSequenceClassification(BertConfig.from_pretrained(model, num_labels=7)).save_pretrained(model)
    base = load_base(recipe(model), LABELS)
    assert base.model.classifier.out_features == 3
    assert base.fresh == ["classifier"]


def test_a_pooler_that_the_checkpoint_lacks_is_fresh(model: Path) -> None:
    BertForMaskedLM(BertConfig.from_pretrained(model)).save_pretrained(model)
    assert load_base(recipe(model), LABELS).fresh == ["classifier", "pooler"]


def test_weights_in_half_precision_are_trained_in_full(model: Path) -> None:
    BertModel.from_pretrained(model).half().save_pretrained(model)
    assert {weight.dtype for weight in load_base(recipe(model), LABELS).model.parameters()} == {torch.float32}


def test_the_tokenizer_is_fast_and_cuts_and_pads_nothing_by_itself(model: Path) -> None:
    pad = {"pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    edit(
        model / "tokenizer.json",
        truncation={"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        padding={"strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": None} | pad,
    )
    tokenizer = load_tokenizer(recipe(model))
    assert tokenizer.is_fast
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    assert (state["truncation"], state["padding"]) == (None, None)
    assert len(tokenizer("cat dog horse bird fish cow")["input_ids"]) == 8


def test_the_tokenizer_can_come_from_a_vocabulary(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    assert load_tokenizer(recipe(model)).is_fast


def test_a_base_without_a_tokenizer(model: Path) -> None:
    for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json"):
        (model / name).unlink()
    message = refused(lambda: load_tokenizer(recipe(model)))
    assert message.startswith(f"model: {model} has no usable tokenizer (tokenizer.json is needed): ")


@pytest.mark.parametrize("content", ["", "{", "{}", '{"model": {"type": "Unknown"}}'])
def test_a_tokenizer_that_is_broken(content: str, model: Path) -> None:
    (model / "tokenizer.json").write_text(content)
    (model / "vocab.txt").unlink()
    assert refused(lambda: load_tokenizer(recipe(model))).startswith(f"model: {model} has no usable tokenizer")


def test_a_tokenizer_without_a_padding_token(model: Path) -> None:
    edit(model / "tokenizer_config.json", pad_token=None)
    edit(model / "special_tokens_map.json", pad_token=...)
    assert "its tokenizer has no padding token" in refused(lambda: load_tokenizer(recipe(model)))


def test_a_tokenizer_of_another_model(model: Path) -> None:
    BertModel(BertConfig.from_pretrained(model, vocab_size=9)).save_pretrained(model)
    message = refused(lambda: load_tokenizer(recipe(model)))
    assert message.endswith("and the model 9: give a model with its own tokenizer")


def test_more_tokens_than_the_model_takes(model: Path) -> None:
    assert load_tokenizer(recipe(model, max_tokens=64))
    message = refused(lambda: load_tokenizer(recipe(model, max_tokens=65)))
    assert message == f"max_tokens: 65 is more than the maximum of {model}, 64"
    edit(model / "tokenizer_config.json", model_max_length=10**30)
    edit(model / "config.json", max_position_embeddings=32)
    assert refused(lambda: load_tokenizer(recipe(model, max_tokens=33))).endswith(", 32")


@pytest.mark.parametrize(
    "kind", ["roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "ibert", "data2vec-text"]
)
def test_positions_that_are_counted_from_the_padding_on_are_fewer(kind: str, model: Path) -> None:
    edit(model / "tokenizer_config.json", model_max_length=10**30)
    edit(model / "config.json", max_position_embeddings=32, model_type=kind)
    assert refused(lambda: load_tokenizer(recipe(model, max_tokens=32))).endswith(", 31")
    assert load_tokenizer(recipe(model, max_tokens=31)).is_fast


def test_no_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()
    message = refused(lambda: load_base(recipe(model), LABELS))
    assert message.startswith(f"model: {model} has no usable model (model.safetensors is needed): ")


def test_a_pickle_is_never_read(model: Path, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "hacked",)

    (model / "model.safetensors").unlink()
    torch.save({"weight": Hostile()}, model / "pytorch_model.bin")
    assert "(model.safetensors is needed)" in refused(lambda: load_base(recipe(model), LABELS))
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xff" * 8 + b"{}", b"\x10\0\0\0\0\0\0\0" + b"{" * 16])
def test_weights_that_are_broken(content: bytes, model: Path) -> None:
    (model / "model.safetensors").write_bytes(content)
    assert refused(lambda: load_base(recipe(model), LABELS)).startswith(f"model: {model} has no usable model")


def test_an_encoder_that_its_file_holds_in_part_is_not_filled_up_with_random_weights(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    gone = "encoder.layer.1.output.dense.weight"
    save_file(
        {name: weight for name, weight in weights.items() if name != gone},
        model / "model.safetensors",
        {"format": "pt"},
    )
    message = refused(lambda: load_base(recipe(model), LABELS))
    assert f"the weight bert.{gone} is not in its files" in message
    assert "(1 such weights); the files do not belong together" in message


def test_an_encoder_of_another_shape_than_its_config_says(model: Path) -> None:
    edit(model / "config.json", intermediate_size=48)
    message = refused(lambda: load_base(recipe(model), LABELS))
    assert "has another shape than in config.json (6 such weights)" in message


def test_an_encoder_that_is_not_in_the_file_at_all(model: Path) -> None:
    save_file({"other.weight": torch.zeros(2)}, model / "model.safetensors", {"format": "pt"})
    assert "the files do not belong together" in refused(lambda: load_base(recipe(model), LABELS))


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"model_type": "no-such-model"}', '{"model_type": "bert", "hidden_size": "x"}']
)
def test_a_config_that_is_broken(content: str, model: Path) -> None:
    (model / "config.json").write_text(content)
    message = refused(lambda: load_base(recipe(model), LABELS))
    assert message.startswith(f"model: {model} has no usable ")


def test_a_file_is_no_model(tiny_csv: Path) -> None:
    assert refused(lambda: load_base(recipe(tiny_csv), LABELS)) == (
        f"model: {tiny_csv} is a file; give the folder with config.json, model.safetensors and tokenizer.json"
    )


@pytest.mark.parametrize("known", [True, False])
def test_code_of_the_models_own_is_never_run(known: bool, model: Path, tmp_path: Path) -> None:
    code = f"from pathlib import Path\nPath({str(tmp_path / 'hacked')!r}).touch()\n"
    (model / "custom.py").write_text(code + "class Custom: ...\n")
    auto_map = {"AutoConfig": "custom.Custom", "AutoModelForSequenceClassification": "custom.Custom"}
    edit(model / "config.json", auto_map=auto_map, **({} if known else {"model_type": "custom"}))
    edit(model / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "custom.Custom"]})
    if known:
        assert load_base(recipe(model), LABELS).fresh == ["classifier"]
        assert load_tokenizer(recipe(model)).is_fast
    else:
        expected = (
            f"model: {model} needs code of its own, which is never run; choose a model that transformers supports"
        )
        assert refused(lambda: load_base(recipe(model), LABELS)) == expected
        assert refused(lambda: load_tokenizer(recipe(model))) == expected
    assert not (tmp_path / "hacked").exists()


def test_attention_code_from_a_hub_is_refused(model: Path) -> None:
    edit(model / "config.json", attn_implementation="someone/kernel")
    assert load_base(recipe(model), LABELS).model.config._attn_implementation in ("sdpa", "eager")
    edit(model / "config.json", _attn_implementation="someone/kernel")
    assert "attention code from a hub, which is never run" in refused(lambda: load_base(recipe(model), LABELS))


def test_an_adapter_is_not_followed_to_the_base_that_it_names(model: Path) -> None:
    (model / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "/elsewhere", "peft_type": "LORA"})
    )
    assert "is an adapter: merge it into its base model first" in refused(lambda: load_base(recipe(model), LABELS))


def test_a_hub_name_without_a_network_fails_soon_and_says_why() -> None:
    for load in (load_tokenizer, lambda asked: load_base(asked, LABELS)):
        start = time.monotonic()
        message = refused(lambda load=load: load(recipe("google-bert/bert-base-cased")))
        assert time.monotonic() - start < 10
        assert message.startswith(
            "model: the config of google-bert/bert-base-cased could not be loaded: there is no such path here, and the "
            "hub (http://127.0.0.1:9) cannot be reached. Check the network, or give a local path or package:NAME/path"
        )


@pytest.fixture
def cached(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model as the hub's cache holds it; the directory of its one commit."""
    from transformers.utils import hub

    repository = tmp_path / "cache/models--someone--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub, "TRANSFORMERS_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(tiny_model, repository / "snapshots" / ("a" * 40)))


def test_what_is_in_the_hubs_cache_works_without_a_network(cached: Path) -> None:
    asked = recipe("someone/tiny")
    start = time.monotonic()
    assert load_tokenizer(asked).is_fast
    base = load_base(asked, LABELS)
    assert time.monotonic() - start < 10
    assert base.fresh == ["classifier"]
    assert base_digest(asked, base.model) == base_digest(asked, load_base(asked, LABELS).model)
    other = "b" * 40
    cached.rename(cached.parent / other)
    (cached.parent.parent / "refs/main").write_text(other)
    assert base_digest(asked, load_base(asked, LABELS).model) != base_digest(asked, base.model)


def test_the_digest_of_a_local_base_changes_with_its_files(model: Path) -> None:
    asked = recipe(model)
    base = load_base(asked, LABELS).model
    before = base_digest(asked, base)
    make_model(model, seed=1)
    assert base_digest(asked, base) != before


def layer_weights(model: Any, path: str, layer: int) -> dict[str, torch.Tensor]:
    return dict(model.get_submodule(f"{path}.{layer}").state_dict())


@pytest.mark.parametrize(
    ("kind", "path", "there", "keep", "chosen"),
    [
        ("bert", "bert.encoder.layer", 12, 6, [0, 2, 4, 7, 9, 11]),  # DistilBERT's
        ("bert", "bert.encoder.layer", 6, 3, [0, 2, 5]),
        ("roberta", "roberta.encoder.layer", 3, 2, [0, 2]),
        ("distilbert", "distilbert.transformer.layer", 4, 1, [0]),
    ],
)
def test_a_student_has_evenly_spaced_layers(
    kind: str, path: str, there: int, keep: int, chosen: list[int], tmp_path: Path
) -> None:
    model = classifier(kind, layers=there)
    student = with_fewer_layers(model, keep)
    assert (student.config.num_hidden_layers, model.config.num_hidden_layers) == (keep, there)
    for place, layer in enumerate(chosen):
        kept, original = layer_weights(student, path, place), layer_weights(model, path, layer)
        assert kept.keys() == original.keys()
        assert all(torch.equal(kept[name], original[name]) for name in kept)
    others = {name: weight for name, weight in model.state_dict().items() if not name.startswith(path)}
    assert "classifier.bias" in others or "classifier.out_proj.bias" in others
    assert all(torch.equal(student.state_dict()[name], weight) for name, weight in others.items())
    student.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(**batch()).logits, student(**batch()).logits)
    assert [loaded.config.id2label[index] for index in range(3)] == LABELS


def test_all_layers_are_the_model_itself() -> None:
    model = classifier(layers=2)
    assert with_fewer_layers(model, 2) is model


def test_more_layers_than_there_are_cannot_be_kept() -> None:
    with pytest.raises(InputError, match=r"^distill.student_layers: 4 is more than the 3 layers of the model"):
        with_fewer_layers(classifier(), 4)


def test_a_model_whose_layers_share_weights_has_none_to_choose_from() -> None:
    with pytest.raises(InputError, match=r"^distill.student_layers: a albert has no list of layers"):
        with_fewer_layers(classifier("albert"), 1)


def test_every_stage_loads_the_student_as_the_base(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe, ["distill.teacher=x", "distill.student_layers=1"]).recipe
    base = load_base(recipe, LABELS)
    assert len(base.model.bert.encoder.layer) == base.model.config.num_hidden_layers == 1
    assert base.fresh == ["classifier"]
    assert not base.model.training
