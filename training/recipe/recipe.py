"""The recipe: one typed model of all settings of a run. Only task, model and data have no default."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, StringConstraints, ValidationInfo, field_validator

from bentune.bundle.manifest import Name
from bentune.bundle.verdict import CompareSettings
from training.recipe.compression import DistillSettings, PruneSettings
from training.recipe.data import ColumnNames, DataSettings
from training.recipe.evaluate import CalibrateSettings, EvaluateSettings
from training.recipe.method import FullMethod, LoraMethod, Method
from training.recipe.refused import known_tasks, refuse_for_target, refuse_others
from training.recipe.search import SearchSettings
from training.recipe.section import Section
from training.recipe.train import TrainSettings

Asked = TypeVar("Asked", bound=Section | None)
Tag = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?:[a-z0-9]([a-z0-9._-]*[a-z0-9])?$")]


class VerifySettings(Section):
    """Bounds of each hop from the trained model to the served one."""

    rows: int = Field(default=256, ge=1, description="test rows that are compared at every hop")
    merge_tolerance: float = Field(default=1e-3, gt=0, description="largest logit difference, merged to trained")
    calibrate_tolerance: float = Field(
        default=1e-3, gt=0, description="largest logit difference, calibrated to merged and divided"
    )
    export_tolerance: float = Field(default=1e-3, gt=0, description="largest logit difference, ONNX to torch")
    batch_tolerance: float = Field(default=1e-3, gt=0, description="largest logit difference, in a batch to alone")
    label_flips: int = Field(default=0, ge=0, description="rows whose label may change at a hop")
    golden_rows: int = Field(default=32, ge=1, description="number of these rows that a pod replays before it is ready")
    golden_tolerance: float = Field(default=0.02, gt=0, description="largest difference of a probability in a replay")


class PlanSettings(Section):
    """Accuracy that the runtime plan may give up for speed, and the time of its measurements."""

    accuracy_budget: float = Field(default=0.5, ge=0, le=100, description="points of accuracy that a variant may lose")
    rows: int = Field(default=512, ge=8, description="test rows for comparing accuracy")
    batch_rows: int = Field(default=64, ge=8, description="number of these rows that are also computed in batches")
    batch_tolerance: float = Field(
        default=0.02, gt=0, description="largest change of a probability in a batch; beyond it rows run one by one"
    )
    calibration_rows: int = Field(default=64, ge=8, description="training rows for the scales of int8")
    seconds: float = Field(default=1.5, gt=0, le=60, description="duration of each measurement")
    variants: list[Literal["int8-dynamic", "int8-static", "int8-nncf"]] = Field(
        default=["int8-dynamic", "int8-static", "int8-nncf"], description="variants to try beside fp32"
    )


class Recipe(Section):
    """All settings of a run."""

    name: Name = Field(description="name of the model; by default the recipe file's")
    task: str = Field(description="task of the model")
    model: str = Field(min_length=1, description="base model: hub name, local path, or package:NAME/path")
    data: DataSettings
    max_tokens: int = Field(default=256, ge=4, description="longer texts are cut, in training and serving")
    parent: Tag | None = Field(
        default=None, description="NAME:VERSION that this run continues; `bentune retrain` sets it"
    )
    seed: int = Field(default=42, ge=0, lt=2**32, description="seed of the split, the head and the order of rows")
    method: Method = LoraMethod(name="lora")
    train: TrainSettings = TrainSettings()
    distill: DistillSettings | None = Field(default=None, description="learn a larger classifier's answers too")
    prune: PruneSettings | None = Field(default=None, description="make the trained model smaller")
    calibrate: CalibrateSettings = CalibrateSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    verify: VerifySettings = VerifySettings()
    plan: PlanSettings = PlanSettings()
    compare: CompareSettings = CompareSettings()
    search: SearchSettings = SearchSettings()

    @field_validator("train", "distill", "prune", "calibrate", "evaluate", "search")
    @classmethod
    def _of_the_target(cls, section: Asked, info: ValidationInfo) -> Asked:
        if {"data", "task"} <= info.data.keys():
            refuse_for_target(info.data["task"], info.data["data"], section)
        return section

    @field_validator("task")
    @classmethod
    def _known(cls, task: str) -> str:
        if task not in known_tasks():
            raise ValueError(f"Input should be {' or '.join(map(repr, known_tasks()))}")
        return task

    @field_validator("calibrate")
    @classmethod
    def _rows_to_fit(cls, calibrate: CalibrateSettings, info: ValidationInfo) -> CalibrateSettings:
        """Require a validation set to fit the temperature on.

        The model is overconfident on training rows, and test rows measure it.
        """
        if calibrate.temperature and "data" in info.data and not info.data["data"].split.validation:
            raise ValueError("temperature is fitted on validation rows: set data.split.validation, for example 0.1")
        return calibrate

    @field_validator("*")
    @classmethod
    def _of_the_task(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse settings without a meaning for this task."""
        name = str(info.field_name)
        if "task" in info.data and value != cls.model_fields[name].default:
            refuse_others(info.data["task"], name, value)
        return value

    @field_validator("evaluate")
    @classmethod
    def _no_text(cls, evaluate: EvaluateSettings, info: ValidationInfo) -> EvaluateSettings:
        """Refuse the text columns as slices: each text would be a slice of its own."""
        columns = info.data["data"].columns if "data" in info.data else ColumnNames()
        for name in evaluate.slices:
            if name in (columns.text, columns.text_pair):
                raise ValueError(f"slices: {name!r} holds the texts; slice by another column")
        return evaluate

    @property
    def warm(self) -> bool:
        """Return True when training starts from the previous version's weights."""
        return self.train.warm_start and self.parent is not None

    @property
    def carried(self) -> list[str]:
        """Return the columns that test rows keep, to slice by in evaluate and compare."""
        compared = self.compare.columns if self.parent is not None else []
        return list(
            dict.fromkeys([*self.evaluate.slices, *(name for name in compared if name not in {"label", "set"})])
        )

    @property
    def saved_method(self) -> Method:
        """Return the method of the saved weights, which is full for a pruned model."""
        return self.method if self.prune is None else FullMethod(name="full")

    @property
    def learning_rate(self) -> float:
        """Return the peak learning rate; by default the method's."""
        return self.train.learning_rate or self.method.default_learning_rate

    @property
    def prune_learning_rate(self) -> float:
        """Return the peak learning rate after pruning, where every weight is tuned."""
        given = self.prune.learning_rate if self.prune is not None else None
        same = self.train.learning_rate if isinstance(self.method, FullMethod) else None
        return given or same or FullMethod.default_learning_rate
