"""The recipe: one typed model of everything a run depends on. Every value but task, model and data has a default."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from service.contract import Name
from service.verdict import CompareSettings

Fraction = Annotated[float, Field(ge=0, lt=1)]


Tag = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?:[a-z0-9]([a-z0-9._-]*[a-z0-9])?$")]


class Section(BaseModel):
    """A part of the recipe: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class ColumnNames(Section):
    """Which column is what; a folder of classes has `text` and `label`."""

    text: str = Field(default="text", description="column with the text")
    text_pair: str | None = Field(default=None, description="column with the second text of a pair")
    label: str = Field(default="label", description="column with the label")

    @model_validator(mode="after")
    def _different(self) -> "ColumnNames":
        names = [name for name in (self.text, self.text_pair, self.label) if name is not None]
        if repeated := [name for number, name in enumerate(names) if name in names[:number]]:
            raise ValueError(f"text, text_pair and label must be different columns, {repeated[0]!r} is given twice")
        return self


class SplitSettings(Section):
    """How rows are held out."""

    test: float | str = Field(default=0.2, description="share of rows held out, by label; or a hub split's name")
    validation: Fraction = Field(default=0.0, description="share of the training rows to pick the best checkpoint with")
    train: str = Field(default="train", description="name of the hub split to train on")

    @model_validator(mode="after")
    def _share(self) -> "SplitSettings":
        if isinstance(self.test, float) and not 0 < self.test < 1:
            raise ValueError("test must be a share between 0 and 1, or the name of a hub split")
        return self


class RowLimits(Section):
    """At most so many rows, drawn at random with the recipe's seed."""

    train: int | None = Field(default=None, ge=1, description="training rows; all by default")
    test: int | None = Field(default=None, ge=1, description="held-out rows; all by default")


def label_text(label: object) -> str:
    """A label as it is served: numbers without a needless fraction, so that 5, 5.0 and "5" are one label."""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label).strip()


def _texts(value: Any) -> Any:
    """Labels that YAML read as numbers are texts again; what is neither is left for pydantic to refuse."""
    if not isinstance(value, dict):
        return value
    numbers = {old for old, new in value.items() if isinstance(new, int | float) and not isinstance(new, bool)}
    return {label_text(old): label_text(new) if old in numbers else new for old, new in value.items()}


LabelName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class DataSettings(Section):
    """Where the labelled rows come from."""

    source: str = Field(min_length=1, description="hub name, local path, package:NAME/path, or sql:VARIABLE")
    query: str | None = Field(default=None, min_length=1, description="SELECT on the database of sql:VARIABLE")
    config: str | None = Field(default=None, description="configuration of a hub data set")
    columns: ColumnNames = ColumnNames()
    labels: Annotated[dict[str, LabelName], BeforeValidator(_texts)] = Field(
        default={}, description="new names for labels, old: new"
    )
    split: SplitSettings = SplitSettings()
    rows: RowLimits = RowLimits()
    invalid_rows: Literal["error", "drop"] = Field(default="error", description="what to do with an unusable row")

    @model_validator(mode="after")
    def _query(self) -> "DataSettings":
        if self.source.startswith("sql:") != (self.query is not None):
            raise ValueError("a source sql:VARIABLE and a query go together")
        return self


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


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Method = Annotated[FullMethod | LoraMethod, Field(discriminator="name"), BeforeValidator(_named)]

METHODS: dict[str, type[Section]] = {"full": FullMethod, "lora": LoraMethod}
LEARNING_RATES = {"full": 5e-5, "lora": 1e-3}


class TrainSettings(Section):
    """How long and how fast."""

    epochs: float = Field(default=3.0, gt=0, description="passes over the training rows")
    learning_rate: float | None = Field(default=None, gt=0, description="peak; by default 5e-5 for full, 1e-3 for lora")
    batch_size: int = Field(default=16, ge=1, description="rows a step")
    warmup_ratio: Fraction = Field(default=0.1, description="share of the steps that the learning rate rises")
    weight_decay: float = Field(default=0.01, ge=0, description="AdamW's decay")
    warm_start: bool = Field(default=False, description="start from the parent's weights, where there is a parent")
    checkpoint_steps: int = Field(default=50, ge=1, description="steps between checkpoints, from which a run goes on")


class EvaluateSettings(Section):
    """Metrics of the base and the tuned model on the held-out rows."""

    resamples: int = Field(default=1000, ge=100, description="bootstrap resamples")
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="of the intervals")
    examples: int = Field(default=5, ge=0, description="rows to show whose answer changed")


class VerifySettings(Section):
    """Bounds of each hop from the trained model to the served one."""

    rows: int = Field(default=256, ge=1, description="held-out rows that go through every hop")
    merge_tolerance: float = Field(default=1e-3, gt=0, description="largest logit difference, merged to trained")
    export_tolerance: float = Field(default=1e-3, gt=0, description="largest logit difference, ONNX to merged")
    batch_tolerance: float = Field(default=1e-3, gt=0, description="largest logit difference, in a batch to alone")
    label_flips: int = Field(default=0, ge=0, description="rows whose label may change at a hop")
    golden_rows: int = Field(
        default=32, ge=1, description="of these rows, how many a pod replays before it turns ready"
    )
    golden_tolerance: float = Field(default=0.02, gt=0, description="largest difference of a probability there")


class PlanSettings(Section):
    """What the runtime plan may give up for speed, and how long it may look."""

    accuracy_budget: float = Field(default=0.5, ge=0, le=100, description="points of accuracy that a variant may lose")
    rows: int = Field(default=512, ge=8, description="held-out rows that accuracy is compared on")
    batch_rows: int = Field(default=64, ge=8, description="of these rows, how many also go through batches")
    batch_tolerance: float = Field(
        default=0.02, gt=0, description="largest change of a probability in a batch; beyond it rows run one by one"
    )
    calibration_rows: int = Field(default=64, ge=8, description="training rows that fix the scales of int8")
    seconds: float = Field(default=1.5, gt=0, le=60, description="how long each way of running is measured")
    variants: list[Literal["int8-dynamic", "int8-static", "int8-nncf"]] = Field(
        default=["int8-dynamic", "int8-static", "int8-nncf"], description="what is tried beside fp32"
    )


class Recipe(Section):
    """A whole run."""

    name: Name = Field(description="of the model; by default the recipe file's")
    task: Literal["text-classification"] = Field(description="what the model does")
    model: str = Field(min_length=1, description="base model: hub name, local path, or package:NAME/path")
    data: DataSettings
    max_tokens: int = Field(default=256, ge=4, description="longer texts are cut, in training and serving")
    parent: Tag | None = Field(
        default=None, description="NAME:VERSION that this one continues; `bentune retrain` sets it"
    )
    seed: int = Field(default=42, ge=0, lt=2**32, description="of the split, the head and the order of rows")
    method: Method = LoraMethod(name="lora")
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    verify: VerifySettings = VerifySettings()
    plan: PlanSettings = PlanSettings()
    compare: CompareSettings = CompareSettings()

    @property
    def warm(self) -> bool:
        """Whether training starts from the parent's weights."""
        return self.train.warm_start and self.parent is not None

    @property
    def carried(self) -> list[str]:
        """The columns of the source that held-out rows take along to be compared by, where there is a parent."""
        return (
            [name for name in self.compare.columns if name not in {"label", "set"}] if self.parent is not None else []
        )

    @property
    def learning_rate(self) -> float:
        """The peak learning rate, the method's own where none is given."""
        return self.train.learning_rate or LEARNING_RATES[self.method.name]
