"""A temperature is found again, and folded into whatever layer makes the logits."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from transformers import AutoConfig, AutoModelForSequenceClassification

from bentune.bundle.errors import InputError
from training.prove.temperature import fit_temperature, fold
from training.recipe.data import DataSettings
from training.tasks.targets.many_labels import ManyLabelsTraining
from training.tasks.targets.one_label import OneLabelTraining

DATA = DataSettings(source="s")
ONE, MANY = OneLabelTraining(DATA), ManyLabelsTraining(DATA)
NAMES = list("abcdefghijkl")

SMALL: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "num_labels": 3,
    "pad_token_id": 0,
}


def drawn(temperature: float, rows: int = 4000) -> tuple[Any, Any]:
    """Draw logits that are too sure by the factor `temperature`, and gold labels.

    The labels are drawn from the probabilities of the true logits.
    """
    rng = np.random.default_rng(4)
    logits = rng.normal(scale=2, size=(rows, 3))
    gold = (softmax(logits, axis=1).cumsum(axis=1) > rng.random((rows, 1))).argmax(axis=1)
    return (logits * temperature).astype(np.float32), gold


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(temperature: float) -> None:
    logits, gold = drawn(temperature)
    fitted = fit_temperature(logits, gold, ONE, ONE.target(NAMES[: logits.shape[1]], gold))
    assert fitted.temperature == pytest.approx(temperature, rel=0.06)
    assert (fitted.rows, fitted.problem) == (4000, "")
    assert fitted.log_loss_after <= fitted.log_loss_before

    def loss(number: float) -> float:
        return float(-np.log(softmax(logits.astype(np.float64) / number, axis=1)[np.arange(4000), gold]).mean())

    assert fitted.log_loss_before == pytest.approx(loss(1))
    assert fitted.log_loss_after == pytest.approx(loss(fitted.temperature))
    # Nothing near it is better.
    assert fitted.log_loss_after < min(loss(fitted.temperature * 1.02), loss(fitted.temperature / 1.02))


@pytest.mark.parametrize(
    ("logits", "gold"),
    [([[5.0, 0.0], [0.0, 5.0]], [0, 1]), ([[5.0, 0.0], [0.0, 5.0]], [1, 0])],
    ids=["all are right", "all are wrong"],
)
def test_rows_that_tell_no_temperature_leave_it_at_one(logits: Any, gold: Any) -> None:
    fitted = fit_temperature(
        np.array(logits, dtype=np.float32), np.array(gold), ONE, ONE.target(NAMES[: len(logits[0])], np.array(gold))
    )
    assert fitted.temperature == 1
    assert "2 validation rows determine no temperature from 0.05 to 20" in fitted.problem
    assert fitted.log_loss_after == fitted.log_loss_before


@pytest.mark.parametrize(
    ("kind", "layer", "options"),
    [
        ("bert", "classifier", {}),
        ("roberta", "classifier.out_proj", {}),
        ("electra", "classifier.out_proj", {"embedding_size": 16}),
        ("distilbert", "classifier", {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16}),
        ("deberta-v2", "classifier", {}),
        ("modernbert", "classifier", {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}),
        ("gpt2", "score", {"n_embd": 16, "n_layer": 1, "n_head": 2}),
        ("llama", "score", {"num_key_value_heads": 2}),
        # As many outputs as there are labels in more than one layer.
        ("bert", "classifier", {"num_labels": 16}),
    ],
)
def test_it_is_folded_into_the_layer_that_makes_the_logits(kind: str, layer: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(kind, **SMALL | options)).eval()
    inputs = {
        "input_ids": torch.tensor([[1, 5, 9, 7], [1, 8, 6, 0]]),
        "attention_mask": torch.tensor([[1] * 4, [1, 1, 1, 0]]),
    }
    other = {"input_ids": torch.tensor([[3, 4, 20]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    with torch.inference_mode():
        before = [model(**given).logits.numpy() for given in (inputs, other)]
        assert fold(model, inputs, 2.5) == layer
        after = [model(**given).logits.numpy() for given in (inputs, other)]
    for one, two in zip(before, after, strict=True):
        np.testing.assert_allclose(two * 2.5, one, rtol=1e-5, atol=1e-6)


class Made(torch.nn.Module):
    """Makes logits as it is told."""

    def __init__(self, *layers: torch.nn.Module) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(*layers)

    def forward(self, values: torch.Tensor) -> Any:
        return type("Output", (), {"logits": self.layers(values)})


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([torch.nn.Linear(4, 8), torch.nn.AvgPool1d(2)], "no linear layer of it computes the logits"),
        ([torch.nn.Linear(4, 3), torch.nn.Tanh()], "dividing its layer layers.0 does not divide the logits"),
    ],
)
def test_what_cannot_be_divided_is_refused_and_left_alone(layers: list[Any], words: str) -> None:
    torch.manual_seed(0)
    model = Made(*layers)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    with pytest.raises(InputError, match=f"cannot be folded into Made: {words}"):
        fold(model, {"values": torch.randn(2, 4)}, 2.0)
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())


def test_of_any_number_of_labels_it_is_fitted_on_every_decision() -> None:
    generator = np.random.default_rng(0)
    honest = generator.normal(0, 2, (4000, 3)).astype(np.float32)
    gold = (generator.random(honest.shape) < 1 / (1 + np.exp(-honest))).astype(np.int64)
    found = fit_temperature(honest * 3, gold, MANY, MANY.target(NAMES[: honest.shape[1]], gold))
    assert found.temperature == pytest.approx(3, rel=0.1)
    assert found.log_loss_after < found.log_loss_before
    assert fit_temperature(
        honest, (honest > 0).astype(np.int64), MANY, MANY.target(NAMES[: honest.shape[1]], gold)
    ).problem
