"""The number format that training computes in, where the hardware has it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from bentune.bundle.errors import InputError
from bentune.bundle.hardware import isa_flags
from training.recipe.train import Precision

CPU_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}
TOLD = "ACCELERATE_MIXED_PRECISION"


def precision_for(asked: Precision | Literal["auto"]) -> Precision:
    """What to compute in. Raises InputError when the hardware does not have what was asked for.

    bf16 and fp16 are mixed precision: weights and optimizer stay fp32. On a CPU without instructions for bf16 it is
    emulated, many times slower than fp32; fp16 needs a GPU.
    """
    if torch.cuda.is_available():
        has = {"fp32", "fp16"} | ({"bf16"} if torch.cuda.is_bf16_supported(including_emulation=False) else set())
        place = torch.cuda.get_device_name()
    else:
        has = {"fp32"} | ({"bf16"} if CPU_BF16.intersection(isa_flags()) else set())
        place = "this CPU"
    if asked == "auto":
        return "bf16" if torch.cuda.is_available() and "bf16" in has else "fp32"
    if asked not in has:
        raise InputError(
            f"train.precision: {asked} is not in the hardware of {place}; it has {' and '.join(sorted(has))}: choose "
            "one of these, or auto"
        )
    return asked


@contextmanager
def told(precision: Precision) -> Iterator[None]:
    """Tell accelerate what to compute in, while a Trainer is made.

    transformers 4.57 sets the variable with each TrainingArguments and leaves it so: every later training of the
    process would compute in the precision of the first one that is not fp32.
    """
    before = os.environ.get(TOLD)
    os.environ[TOLD] = "no" if precision == "fp32" else precision
    try:
        yield
    finally:
        if before is None:
            del os.environ[TOLD]
        else:
            os.environ[TOLD] = before
