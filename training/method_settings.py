"""The recipe's `method`: what of the model is tuned."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from training.section import Fraction, Section, named


class FullMethod(Section):
    """Every weight is tuned."""

    name: Literal["full"]


class LoraMethod(Section):
    """Low-rank adapters beside frozen weights (Hu et al. 2021, https://arxiv.org/abs/2106.09685)."""

    name: Literal["lora"]
    rank: int = Field(default=16, ge=1, description="rank of the adapters")
    alpha: int = Field(default=32, ge=1, description="scale: an adapter counts alpha / rank")
    dropout: Fraction = Field(default=0.05, description="dropout on the adapters' inputs")
    target_modules: Literal["auto"] | Annotated[list[str], Field(min_length=1)] = Field(
        default="auto", description="layers that get an adapter; auto takes every linear layer but the head"
    )


Method = Annotated[FullMethod | LoraMethod, Field(discriminator="name"), BeforeValidator(named)]

METHODS: dict[str, type[Section]] = {"full": FullMethod, "lora": LoraMethod}
LEARNING_RATES = {"full": 5e-5, "lora": 1e-3}
