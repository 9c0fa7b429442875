"""The layout of a run: for each stage the files in its directory that other stages, the report or commands read.

Every class is one stage's directory; its files are paths when read from an instance: `DataFiles(directory).test`.
Files that only the stage itself uses are named in its own module.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, overload

from bentune.bundle.manifest import BASELINE, ROWS, SETTINGS
from bentune.bundle.plan import FP32, model_file

RECORD = "stage.json"
"""Written last: its existence means that the stage is complete."""


class File:
    """A file or directory of a stage; `name` is its path relative to the stage's directory."""

    def __init__(self, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, files: None, kind: type) -> Self: ...
    @overload
    def __get__(self, files: "StageFiles", kind: type) -> Path: ...
    def __get__(self, files: "StageFiles | None", kind: type) -> Any:
        """Return the path below the directory of `files`.

        Returns the File itself when read from the class.
        """
        return self if files is None else files.directory / self.name


@dataclass(frozen=True)
class StageFiles:
    """The directory of one stage."""

    stage: ClassVar[str]
    directory: Path

    record = File(RECORD)


class DataFiles(StageFiles):
    """The cleaned and split rows; `validation` and `held_out` exist only where the recipe needs them.

    `seen` holds filters of the training rows and the held-out rows. `held_out` has the test rows for `bentune compare`,
    one JSON object a line.
    """

    stage = "data"

    train = File("train.parquet")
    validation = File("validation.parquet")
    test = File("test.parquet")
    labels = File("labels.json")
    target = File("target.json")
    seen = File(ROWS)
    report = File("report.json")
    doubtful = File("doubtful.jsonl")
    held_out = File("held_out.jsonl")

    def part(self, name: str) -> Path:
        """Return the rows of one part: train, validation or test."""
        return self.directory / f"{name}.parquet"


class TrainFiles(StageFiles):
    """The tuned model: as `adapter`, or as `model` where every weight was trained.

    `base` fingerprints the base model, `teacher` the teacher of a distillation. `dense` is the model before pruning.
    """

    stage = "train"

    adapter = File("adapter")
    model = File("model")
    tokenizer = File("tokenizer")
    labels = File("labels.json")
    target = File("target.json")
    base = File("base.json")
    teacher = File("teacher.json")
    dense = File("dense")


class MergeFiles(StageFiles):
    """The merged model with its tokenizer or image processor."""

    stage = "merge"

    model = File("model")
    weights = File("model/model.safetensors")


class CalibrateFiles(StageFiles):
    """The merged model, its logits divided by the temperature."""

    stage = "calibrate"

    model = File("model")
    weights = File("model/model.safetensors")
    temperature = File("temperature.json")


class EvaluateFiles(StageFiles):
    """The metrics on the test rows."""

    stage = "evaluate"

    evaluation = File("evaluation.json")


class ExportFiles(StageFiles):
    """The ONNX model and its processor; the bundle holds both directories.

    `tokenizer` exists for texts, `limits` for images.
    """

    stage = "export"

    model = File("model")
    fp32 = File(model_file(FP32))
    config = File("config.json")
    processor = File("processor")
    settings = File(SETTINGS)
    tokenizer = File("processor/tokenizer.json")
    limits = File("limits.json")


class VerifyFiles(StageFiles):
    """The parity chain, and golden rows with the scores of fp32."""

    stage = "verify"

    parity = File("parity.json")
    golden = File("golden.jsonl")


class PlanFiles(StageFiles):
    """The runtime plan and its files for the bundle; `model` holds the variants beside fp32."""

    stage = "plan"

    model = File("model")
    plan = File("plan.json")
    golden = File("golden.jsonl")
    baseline = File(BASELINE)
    report = File("report.md")
    pareto = File("pareto.png")


class PackageFiles(StageFiles):
    """The names of the bundle and the Bento in the BentoML stores."""

    stage = "package"

    artifacts = File("artifacts.json")
