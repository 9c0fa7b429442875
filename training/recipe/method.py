"""The recipe's `method`: the part of the model that is tuned."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from training.recipe.section import Fraction, Section, named


class FullMethod(Section):
    """Full fine-tuning: every weight is tuned."""

    name: Literal["full"]
    default_learning_rate: ClassVar[float] = 5e-5


class _Adapters(Section):
    name: str
    rank: int = Field(default=16, ge=1, description="rank of the adapters")
    alpha: int = Field(default=32, ge=1, description="scale: an adapter's output is multiplied by alpha / rank")
    dropout: Fraction = Field(default=0.05, description="dropout on the adapters' inputs")
    target_modules: Literal["auto"] | Annotated[list[str], Field(min_length=1)] = Field(
        default="auto", description="layers that get an adapter; auto takes every linear layer but the head"
    )
    rslora: bool = Field(default=False, description="scale by alpha / sqrt(rank), which suits high ranks")
    dora: bool = Field(default=False, description="train magnitude and direction of each weight separately")


class LoraMethod(_Adapters):
    """Low-rank adapters beside frozen weights (Hu et al. 2021, https://arxiv.org/abs/2106.09685).

    `rslora` is rank-stabilized (Kalajdzievski 2023, https://arxiv.org/abs/2312.03732), `dora` weight-decomposed
    (Liu et al. 2024, https://arxiv.org/abs/2402.09353).
    """

    name: Literal["lora"]
    default_learning_rate: ClassVar[float] = 1e-3


class QloraMethod(_Adapters):
    """Adapters beside frozen 4-bit weights, NF4 (Dettmers et al. 2023, https://arxiv.org/abs/2305.14314)."""

    name: Literal["qlora"]
    default_learning_rate: ClassVar[float] = 1e-3
    double_quantization: bool = Field(default=True, description="the scales of the 4-bit weights are held in 8 bits")


class BiasMethod(Section):
    """Biases and the head (BitFit: Ben Zaken et al. 2021, https://arxiv.org/abs/2106.10199)."""

    name: Literal["bias"]
    default_learning_rate: ClassVar[float] = 1e-3


class FreezeMethod(Section):
    """All weights except the lowest layers, or except named parts."""

    name: Literal["freeze"]
    default_learning_rate: ClassVar[float] = 5e-5
    layers: int | None = Field(
        default=None,
        ge=0,
        description="lowest layers that are frozen, with the embeddings; by default half of all layers",
    )
    patterns: Annotated[list[str], Field(min_length=1)] | None = Field(
        default=None, description="parts that are frozen instead: embeddings, encoder.layer.0, *.attention.*"
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.layers is not None and self.patterns is not None:
            raise ValueError("give `layers` or `patterns`, not both")
        return self


class HeadMethod(Section):
    """The head alone, on the features of the frozen model."""

    name: Literal["head"]
    default_learning_rate: ClassVar[float] = 1e-2


Method = Annotated[
    FullMethod | LoraMethod | QloraMethod | BiasMethod | FreezeMethod | HeadMethod,
    Field(discriminator="name"),
    BeforeValidator(named),
]

METHODS: dict[str, type[Method]] = {
    "full": FullMethod,
    "lora": LoraMethod,
    "qlora": QloraMethod,
    "bias": BiasMethod,
    "freeze": FreezeMethod,
    "head": HeadMethod,
}
