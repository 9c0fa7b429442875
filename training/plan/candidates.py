"""Variants for serving: each is built and checked, and repaired if it narrowly fails."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from bentune.bundle.hardware import Cpu
from bentune.bundle.plan import CPU, FP32, Check
from service.engine.predictor import Session
from service.engine.providers import available
from service.tasks.task import Encoded
from training.plan.checks import Sample, check, logits_alone
from training.plan.fusion import with_bias
from training.plan.variants import BUILDERS, GraphInputs, node_groups, prepared
from training.recipe.recipe import PlanSettings

Advance = Callable[[int], None]

# A variant that exceeds its budget by more points than this is not repaired.
NARROWLY = 2.0
MOST_SPARED = 2


@dataclass(frozen=True, slots=True)
class Trial:
    """Inputs of the checks: the test set, training rows that calibrate int8, the settings and the CPU."""

    sample: Sample
    calibration: Sequence[Encoded]
    settings: PlanSettings
    cpu: Cpu
    seed: int

    @property
    def reduce_range(self) -> bool:
        """True if this CPU computes products of int8 weights exactly only in 7 bits."""
        return not self.cpu.has_int8_dot_product

    def feeds(self, model: onnx.ModelProto) -> list[GraphInputs]:
        """Build the graph's calibration inputs, one row each."""
        names = [value.name for value in model.graph.input]
        collate = self.sample.encoder.collate
        return [{name: collate([row])[name] for name in names} for row in self.calibration]

    def logits(self, model: Path, provider: str, advance: Advance) -> tuple[Session, np.ndarray]:
        """Open `model` and compute the logits of every test row alone.

        The logits are float32 [rows, labels].
        """
        session = Session(model, provider, 1, self.cpu.cores)
        return session, logits_alone(session, self.sample, self.cpu.cores, advance)


def candidates(fp32: Path, directory: Path, trial: Trial, advance: Advance) -> tuple[list[Check], dict[str, Path]]:
    """Build every variant of the recipe into `directory`, and check it.

    The variants and fp32 are checked on every provider. Returns the checks, including those of refused variants, and
    the file of each variant. `advance` is called with the number of computed rows.
    """
    directory.mkdir()
    ready = directory / "prepared.onnx"
    prepared(fp32, ready)
    session, reference = trial.logits(fp32, CPU, advance)
    trial = replace(trial, sample=replace(trial.sample, fp32=reference))
    models = {FP32: fp32}
    checks = [_check(FP32, CPU, session, reference, fp32, trial)]
    checks += [_tried(FP32, provider, fp32, trial, advance) for provider in available() if provider != CPU]
    groups: dict[str, list[str]] = {}
    for variant in trial.settings.variants:
        model = directory / f"{variant}.onnx"
        found = _built(variant, ready, model, trial, (), advance)
        if any(_narrow(one, trial.settings) for one in found):
            groups = groups or _by_sensitivity(ready, directory / "one-group.onnx", trial, reference)
            found = _spared(variant, ready, model, trial, groups)
        checks += found
        models[variant] = model
    return checks, models


def _built(
    variant: str, ready: Path, model: Path, trial: Trial, keep_fp32: Collection[str], advance: Advance
) -> list[Check]:
    """Write the variant to `model` and check it on each provider."""
    try:
        feeds = trial.feeds(onnx.load(ready, load_external_data=False))
        BUILDERS[variant](ready, model, feeds, keep_fp32, trial.reduce_range)
        if available() == (CPU,):  # other providers read QDQ only
            onnx.save(with_bias(onnx.load(model)), model)
    except OSError:  # a full disk is not the variant's fault
        raise
    except Exception as error:  # the quantizers raise any error at an unsupported operator
        problem = f"it could not be built: {type(error).__name__}: {_first_line(error)}"
        return [Check(variant=variant, provider=CPU, rows=0, megabytes=0, problem=problem)]
    return [_tried(variant, provider, model, trial, advance) for provider in available()]


def _tried(variant: str, provider: str, model: Path, trial: Trial, advance: Advance) -> Check:
    try:
        session, alone = trial.logits(model, provider, advance)
        return _check(variant, provider, session, alone, model, trial)
    except Exception as error:  # ONNX Runtime's errors have no common base
        problem = _first_line(error)
        return Check(variant=variant, provider=provider, rows=0, megabytes=_megabytes(model), problem=problem)


def _check(variant: str, provider: str, session: Session, alone: np.ndarray, model: Path, trial: Trial) -> Check:
    megabytes = _megabytes(model)
    return check(variant, provider, session, trial.sample, alone, trial.settings, megabytes=megabytes, seed=trial.seed)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _megabytes(model: Path) -> float:
    return model.stat().st_size / 1e6


def _narrow(found: Check, settings: PlanSettings) -> bool:
    loss = found.accuracy_loss
    return loss is not None and settings.accuracy_budget < loss <= settings.accuracy_budget + NARROWLY


def _spared(
    variant: str,
    ready: Path,
    model: Path,
    trial: Trial,
    groups: dict[str, list[str]],
) -> list[Check]:
    """Keep sensitive groups of nodes in fp32 until the accuracy budget is met.

    One more group is kept at a time, at most MOST_SPARED.
    """
    found: list[Check] = []
    for count in range(1, MOST_SPARED + 1):
        spared = tuple(groups)[:count]
        nodes = [node for group in spared for node in groups[group]]
        found = [
            one.model_copy(update={"kept_fp32": spared})
            for one in _built(variant, ready, model, trial, nodes, lambda _: None)
        ]
        if not any(one.problem for one in found):
            break
    return found


def _by_sensitivity(ready: Path, scratch: Path, trial: Trial, reference: np.ndarray) -> dict[str, list[str]]:
    """Rank groups of nodes by the logit change when only that group is in int8.

    The largest change is first. Dynamic int8 represents the other variants: it is built in a second and has the same
    weights.
    """
    model = onnx.load(ready)
    groups = node_groups(model)
    quantized = {group: nodes for group, nodes in groups.items() if group not in ("embeddings", "attention")}
    few = replace(trial.sample, tokens=trial.sample.tokens[: trial.settings.batch_rows])
    moved = {}
    for group in quantized:
        others = [node for other, nodes in quantized.items() if other != group for node in nodes]
        BUILDERS["int8-dynamic"](ready, scratch, (), others, trial.reduce_range)
        logits = logits_alone(Session(scratch, CPU, 1, trial.cpu.cores), few, trial.cpu.cores, lambda _: None)
        moved[group] = float(np.abs(logits - reference[: len(logits)]).mean())
    scratch.unlink()
    return {group: quantized[group] for group in sorted(quantized, key=lambda group: -moved[group])}
