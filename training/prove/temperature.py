"""Temperature scaling: division of the logits by one number, fitted on the validation set.

Guo et al. 2017, "On Calibration of Modern Neural Networks": the temperature changes a model's confidence and never its
answer. It is folded into the weights of the layer that computes the logits, so the service needs no code for it.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from bentune.bundle.arrays import Logits
from bentune.bundle.errors import InputError
from bentune.bundle.targets.target import Target
from training.pipeline.results import Temperature
from training.tasks.rows import Labels
from training.tasks.targets.target import TrainingTarget

MOST = 20.0
"""Upper end of the search for a temperature; the lower end is 1 / MOST."""


def fit_temperature(logits: Logits, gold: Labels, training: TrainingTarget, target: Target) -> Temperature:
    """Find the temperature with the least log loss.

    `logits` are float32 [rows, labels], `gold` are the target's labels. The temperature is 1, with a `problem`, when
    every answer is right or the least loss is at an end of the range: then the rows do not determine a temperature.
    """

    def loss(logarithm: float) -> float:
        return training.log_loss(logits.astype(np.float64) / math.exp(logarithm), gold)

    end = math.log(MOST)
    best = float(minimize_scalar(loss, bounds=(-end, end), method="bounded", options={"xatol": 1e-7}).x)
    problem = ""
    if end - abs(best) < 1e-3 or not target.differ(target.answers(logits), gold).any():
        best = 0.0
        problem = (
            f"{len(gold)} validation rows determine no temperature from {1 / MOST:g} to {MOST:g}; more rows may help"
        )
    return Temperature(
        temperature=math.exp(best),
        rows=len(gold),
        log_loss_before=loss(0.0),
        log_loss_after=loss(best),
        problem=problem,
    )


def fold(model: torch.nn.Module, inputs: dict[str, Any], temperature: float) -> str:
    """Divide the weights of the logits' layer in place, and return its name.

    It is the last linear layer to run on the batch `inputs` that has one output per logit. Raises InputError, and
    leaves the model unchanged, when there is no such layer, or when dividing it does not divide the logits.
    """
    model.eval()
    with torch.inference_mode():
        before, name = _last_linear(model, lambda: model(**inputs).logits)
        if name is None:
            raise _unfit(model, "no linear layer of it computes the logits")
        layer = model.get_submodule(name)
        weights = dict(layer.named_parameters())
        kept = {part: weight.clone() for part, weight in weights.items()}
        for weight in weights.values():
            weight.data.div_(temperature)
        difference = float((model(**inputs).logits - before / temperature).abs().max())
        # Negated, so that a NaN fails too.
        if not difference <= 1e-4 * max(1.0, float((before / temperature).abs().max())):
            for part, weight in weights.items():
                weight.data.copy_(kept[part])
            raise _unfit(model, f"dividing its layer {name} does not divide the logits")
    return name


def _last_linear(model: torch.nn.Module, forward: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, str | None]:
    called: list[tuple[str, int]] = []
    hooks = [
        module.register_forward_hook(lambda layer, _, __, name=name: called.append((name, layer.out_features)))
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    try:
        logits = forward()
    finally:
        for hook in hooks:
            hook.remove()
    return logits, next((name for name, outputs in reversed(called) if outputs == logits.shape[-1]), None)


def _unfit(model: torch.nn.Module, why: str) -> InputError:
    return InputError(
        f"calibrate.temperature: a temperature cannot be folded into {type(model).__name__}: {why}; leave it out"
    )
