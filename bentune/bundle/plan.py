"""The runtime plan: how the bundle is run, everything that was measured to find out, and what to do on other hardware.

A plan is measured on one CPU. A pod may have fewer cores, lack the instructions that a quantized model was proven
with, or have no OpenVINO: it then takes the next best entry that was measured and that fits.
"""

from typing import Annotated, Any

from pydantic import Field, StringConstraints, model_validator

from bentune.bundle.files import Frozen
from bentune.bundle.hardware import Cpu

FP32 = "fp32"

CPU = "CPUExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"
"""The execution providers that a plan may choose, as ONNX Runtime calls them."""
FORMER_SPEED = "texts_per_second"
"""Name of inputs_per_second in plans of bundles that were made when all inputs were texts."""


def model_file(variant: str) -> str:
    """Return the path of the variant's ONNX file in the bundle."""
    return f"model/{variant}.onnx"


def scores_key(variant: str, provider: str) -> str:
    """Return the key of a golden row's scores for a variant on a provider.

    Each provider has scores of its own, because kernels round int8 in their own ways.
    """
    return f"{variant}/{provider}"


Variant = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]  # part of a file's name


class Check(Frozen):
    """Check of a variant's answers on one provider, against fp32's on the same test rows.

    `accuracy_loss` is in points, with the interval `loss_low` to `loss_high`; negative when the variant was better.
    `label_flips` counts rows that it labels otherwise than fp32. `batch_flips` counts rows that it labels otherwise
    in some batch than alone, `batch_difference` is the largest change of a probability there; a variant that is `alone`
    depends on its batch and may only run rows one by one. `kept_fp32` names groups of nodes that were left in fp32 to
    save its accuracy. `problem` says in words why it was refused, and is empty when it was not.
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
    """One way of running the bundle, as it was measured under load.

    `inputs_per_second` is with every slot busy. `lone_ms` is the median time in milliseconds of an input that arrives
    alone and gets all `slots` x `threads` cores. Both are medians over the `rounds` in which it was measured.
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
        """The cores that it keeps busy."""
        return self.slots * self.threads


class Plan(Frozen):
    """Runtime plan. `slots` and `threads` of None follow the cores that the pod really has.

    `token_budget` bounds the padded tokens of a batch, `padding_bound` the share of them that is padding. `cpu` is
    what it was measured on, `taken` the share of its cores that other programs kept busy meanwhile. `checks` and
    `measured` are empty for the default plan, which nobody measured. `measured` holds entries of variants that passed
    their checks only: the winner, then the others, the fastest first.
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
        """Every variant that a pod may be sent to."""
        return {FP32, self.variant, *(entry.variant for entry in self.measured)}
