"""A small result of each stage, for tests whose stages do nothing."""

from bentune.bundle.hardware import Cpu
from bentune.bundle.plan import CPU, FP32
from bentune.quality.statistics.bootstrap import Interval
from training.pipeline.results import (
    CalibrateResult,
    DataResult,
    DoubtfulLabels,
    EvaluateResult,
    ExportResult,
    Hardware,
    MergeResult,
    PackageResult,
    Parameters,
    PlanResult,
    Result,
    SplitReport,
    TrainedRows,
    TrainResult,
    VerifyResult,
)

_WHOLE = Interval(value=1.0, low=1.0, high=1.0)
_ALL: tuple[Result, ...] = (
    DataResult(
        source=["rows.csv"],
        fingerprint="rows",
        labels=["a", "b"],
        rows={"train": 2, "test": 2},
        rows_by_label={"train": {"a": 1, "b": 1}, "test": {"a": 1, "b": 1}},
        labels_a_row=None,
        dropped={},
        cleaned={},
        read=4,
        split=SplitReport(kind="label", seed=0, test=0.5, validation=0.0),
        doubtful_labels=DoubtfulLabels(
            rows=4, judged=0, accuracy=None, found={}, removed=0, not_judged="few rows", first=[]
        ),
    ),
    TrainResult(
        base="base",
        base_sha256="base",
        method="full",
        parameters=Parameters(trainable=1, total=1),
        training_rows=TrainedRows(rows=2, perturbed=0, by_label={"given": {}, "trained": {}}, weights=None),
        learning_rate=0.1,
        hardware=Hardware(cpu=Cpu(model="cpu", isa=(), cores=1), gpus=[]),
        steps=1,
        resumed_at_step=0,
        loss=0.5,
        best_step=None,
        stopped_early=False,
        precision="fp32",
        processes=1,
        sharded=False,
        warnings=[],
        curve=[],
    ),
    MergeResult(weights_sha256="weights"),
    CalibrateResult(temperature=1.0, rows=2, log_loss_before=0.5, log_loss_after=0.5, weights_sha256="weights"),
    EvaluateResult(base=_WHOLE, tuned=_WHOLE, rows=2),
    ExportResult(onnx_sha256="onnx", onnx_bytes=1),
    VerifyResult(merge=0.0, export=0.0, batch=0.0, rows=2),
    PlanResult(
        variant=FP32,
        provider=CPU,
        slots=1,
        threads=1,
        token_budget=1,
        inputs_per_second=1.0,
        lone_ms=1.0,
        padding=0.0,
    ),
    PackageResult(
        model="tiny:1",
        bundle="bundle",
        digest="digest",
        content="content",
        weights_sha256="weights",
        bento="tiny:1",
        bento_path="bento",
        code_revision="revision",
        tools={},
    ),
)
RESULTS = {result.stage: result for result in _ALL}
"""By the stage's name."""
