"""The layout names the files that the stages really leave."""

from pathlib import Path

import pytest

from training.pipeline.layout import (
    DataFiles,
    EvaluateFiles,
    ExportFiles,
    File,
    MergeFiles,
    PackageFiles,
    PlanFiles,
    StageFiles,
    TrainFiles,
    VerifyFiles,
)

ONLY_SOMETIMES = {
    DataFiles: {"validation", "held_out"},
    TrainFiles: {"adapter", "teacher", "dense"},
    ExportFiles: {"limits"},
}


@pytest.mark.parametrize(
    "kind",
    [DataFiles, TrainFiles, MergeFiles, EvaluateFiles, ExportFiles, VerifyFiles, PlanFiles, PackageFiles],
)
def test_every_file_is_there_after_a_run(kind: type[StageFiles], tiny_run: Path) -> None:
    files = kind(tiny_run / kind.stage)
    names = {name for name, value in vars(kind).items() if isinstance(value, File)} | {"record"}
    missing = {name for name in names if not getattr(files, name).exists()}
    assert missing == ONLY_SOMETIMES.get(kind, set())


def test_a_file_is_a_path_below_the_directory_and_a_name_without_one() -> None:
    assert DataFiles(Path("run/data")).test == DataFiles(Path("run/data")).part("test") == Path("run/data/test.parquet")
    assert ExportFiles.fp32.name == "model/fp32.onnx"
