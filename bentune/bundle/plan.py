"""Runtime plan of a bundle: the choice, its measurements, and the fallbacks on other hardware.

A plan is measured on one CPU. A pod may have fewer cores, lack the instructions with which a quantized model was
checked, or have no OpenVINO. It then takes the next best measured entry that fits.
"""

from typing import Annotated, Any

from pydantic import Field, StringConstraints, model_validator

from bentune.bundle.files import Frozen
from bentune.bundle.hardware import Cpu

FP32 = "fp32"

CPU = "CPUExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"
"""Execution providers that a plan may choose, by ONNX Runtime's names."""
FORMER_SPEED = "texts_per_second"
"""Name of inputs_per_second in the plans of older bundles, whose inputs were all texts."""


def model_file(variant: str) -> str:
    """Return the path of the variant's ONNX file in the bundle."""
    return f"model/{variant}.onnx"


def scores_key(variant: str, provider: str) -> str:
    """Return the key of a golden row's scores for a variant on a provider.

    Each provider has its own scores, because kernels round int8 differently.
    """
    return f"{variant}/{provider}"


Variant = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]  # part of a file's name


class Check(Frozen):
    """Check of a variant's answers on one provider, against fp32's on the same test rows.

    `accuracy_loss` is in points, with the interval `loss_low` to `loss_high`; it is negative when the variant was
    better. `label_flips` counts flips against fp32. `batch_flips` counts flips of a row in some batch against the row
    alone, and `batch_difference` is the largest change of a probability there. A variant that is `alone` depends on its
    batch and may only run rows one by one. `kept_fp32` names groups of nodes that were left in fp32 to keep its
    accuracy. `problem` explains why it was refused, and is empty otherwise.
    """

    variant: Variant
    provider: str
    rows: int
    megabytes: float
    accuracy: float | None = None
    accuracy_loss: float | None = None
    loss_low: float | None = None
    loss_high: float | None = None
    label_flips: int | None = None
    batch_flips: int | None = None
    batch_difference: float | None = None
    alone: bool = False
    kept_fp32: tuple[str, ...] = ()
    problem: str = ""


class Entry(Frozen):
    """One measured way to run the bundle.

    `inputs_per_second` is with every slot busy. `lone_ms` is the median time in milliseconds of an input that arrives
    alone and gets all `slots` x `threads` cores. Both are medians over the `rounds` of measurement.
    """

    variant: Variant
    provider: str
    slots: int = Field(ge=1)
    threads: int = Field(ge=1)
    token_budget: int = Field(ge=1)
    inputs_per_second: float = Field(gt=0)
    lone_ms: float = Field(gt=0)
    padding: float = Field(ge=0, le=1)
    rounds: int = Field(default=1, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _read_former_name(cls, entries: Any) -> Any:
        """Read inputs_per_second under its former name too."""
        if not isinstance(entries, dict) or FORMER_SPEED not in entries:
            return entries
        return {("inputs_per_second" if name == FORMER_SPEED else name): value for name, value in entries.items()}

    @property
    def cores(self) -> int:
        """Number of cores that it keeps busy."""
        return self.slots * self.threads


class Plan(Frozen):
    """Runtime plan. `slots` and `threads` of None follow the pod's cores.

    `token_budget` bounds the padded tokens of a batch, `padding_bound` the share of padding among them. `cpu` is the
    measured machine, `taken` the share of its cores that other programs kept busy meanwhile. `checks` and `measured`
    are empty for the default plan, which is not measured. `measured` has entries only of variants that passed their
    checks: the winner, then the other entries, fastest first.
    """

    variant: Variant = FP32
    provider: str = CPU
    slots: int | None = Field(default=None, ge=1)
    threads: int | None = Field(default=None, ge=1)
    token_budget: int = Field(default=1024, ge=1)
    padding_bound: float = Field(default=0.15, ge=0, lt=1)
    cpu: Cpu | None = None
    taken: float = Field(default=0, ge=0, le=1)
    checks: tuple[Check, ...] = ()
    measured: tuple[Entry, ...] = ()

    @property
    def variants(self) -> set[str]:
        """Variants that a pod may run."""
        return {FP32, self.variant, *(entry.variant for entry in self.measured)}
