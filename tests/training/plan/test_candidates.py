"""Variants are built and checked one by one; one that narrowly fails keeps in fp32 what hurts it most."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from bentune.bundle.hardware import Cpu
from bentune.bundle.manifest import open_bundle
from bentune.bundle.plan import CPU, FP32, Check
from service.tasks.registry import task_of
from training.plan import candidates as module
from training.plan.candidates import MOST_SPARED, NARROWLY, Trial, candidates
from training.plan.checks import Sample
from training.plan.variants import BUILDERS, GraphInputs, node_groups
from training.recipe.recipe import PlanSettings
from training.tasks.rows import read_rows

ALL = ("int8-dynamic", "int8-static", "int8-nncf")
MUCH = 1000.0
"""Added to the logits of the first label, this makes every row get that label."""
AVX2 = Cpu(model="a test", isa=("avx2", "fma"), cores=2)
VNNI = Cpu(model="a test", isa=("avx2", "avx512_vnni", "fma"), cores=2)


class Biased:
    """Copies fp32 and adds to the first label's logit: `moves`, for each group that is not kept whole."""

    def __init__(self, moves: Mapping[str, float]) -> None:
        self.moves = moves
        self.kept: list[set[str]] = []
        self.reduced: set[bool] = set()
        self.calibration: Sequence[GraphInputs] = ()

    def __call__(
        self,
        source: Path,
        target: Path,
        calibration: Sequence[GraphInputs],
        keep_fp32: Collection[str],
        reduce_range: bool,
    ) -> None:
        model = onnx.load(source)
        groups = node_groups(model)
        self.kept.append({name for name, nodes in groups.items() if set(nodes) <= set(keep_fp32)})
        self.reduced.add(reduce_range)
        self.calibration = calibration
        move = sum(amount for name, amount in self.moves.items() if name not in self.kept[-1])
        producer = next(node for node in model.graph.node if "logits" in node.output)
        producer.output[list(producer.output).index("logits")] = "unbiased"
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(np.array([move, 0, 0], dtype=np.float32), "the_bias")
        )
        model.graph.node.append(onnx.helper.make_node("Add", ["unbiased", "the_bias"], ["logits"]))
        onnx.save(model, target)


@pytest.fixture(scope="module")
def fp32(tiny_run: Path) -> Path:
    return tiny_run / "export/model/fp32.onnx"


@pytest.fixture(scope="module")
def trial(tiny_bundle: Path, tiny_run: Path) -> Callable[..., Trial]:
    task = task_of(open_bundle(tiny_bundle))
    tokenizer = task.encoder
    held_out, training = (read_rows(tiny_run / f"data/{name}.parquet") for name in ("test", "train"))
    held_out = held_out.take(np.arange(30))

    def make(cpu: Cpu = AVX2, **settings: Any) -> Trial:
        given = PlanSettings(**{"batch_rows": 8, "calibration_rows": 8, "accuracy_budget": 5.0} | settings)
        return Trial(
            sample=Sample(
                [tokenizer.encode(text, truncate=True) for text in held_out.texts],
                held_out.labels,
                tokenizer,
                task.target,
            ),
            calibration=[tokenizer.encode(text, truncate=True) for text in training.texts[:8]],
            settings=given,
            cpu=cpu,
            seed=1,
        )

    return make


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Biased]:
    """Replace the builder of a variant."""

    def replace(variant: str, **moves: float) -> Biased:
        fake = Biased({name.replace("_", "-"): amount for name, amount in moves.items()})
        monkeypatch.setitem(BUILDERS, variant, fake)
        return fake

    return replace


@pytest.fixture
def check(fp32: Path, trial: Callable[..., Trial], tmp_path: Path) -> Callable[..., dict[str, Check]]:
    """The checks of a trial by variant."""
    attempts: list[Path] = []

    def run(*variants: str, **settings: Any) -> dict[str, Check]:
        attempts.append(tmp_path / f"tried{len(attempts)}")
        checks, models = candidates(fp32, attempts[-1], trial(variants=list(variants), **settings), lambda _: None)
        assert [one.variant for one in checks] == [FP32, *variants]
        assert set(models) == {FP32, *variants}
        return {one.variant: one for one in checks}

    return run


def budget_that_narrowly_refuses(found: Check) -> float:
    assert found.accuracy_loss is not None
    assert found.accuracy_loss > 30
    return found.accuracy_loss - NARROWLY + 0.5


def int8_weights(model: Path) -> list[np.ndarray]:
    graph = onnx.load(model).graph
    return [
        onnx.numpy_helper.to_array(one)
        for one in graph.initializer
        if one.data_type == onnx.TensorProto.INT8 and len(one.dims) == 2
    ]


# Built variants, and the reasons for refusals.


def test_fp32_and_every_variant_that_was_asked_for_are_checked(
    fp32: Path, trial: Callable[..., Trial], tmp_path: Path
) -> None:
    """The real builders."""
    steps: list[int] = []
    checks, models = candidates(fp32, tmp_path / "tried", trial(variants=["int8-dynamic", "int8-static"]), steps.append)
    assert [(one.variant, one.provider, one.problem) for one in checks if one.provider == CPU] == [
        (FP32, CPU, ""),
        ("int8-dynamic", CPU, ""),
        ("int8-static", CPU, ""),
    ]
    assert models[FP32] == fp32
    assert {name: path.parent for name, path in models.items() if name != FP32} == {
        "int8-dynamic": tmp_path / "tried",
        "int8-static": tmp_path / "tried",
    }
    assert sum(steps) == 30 * len(checks)
    assert (checks[0].accuracy_loss, checks[0].label_flips, checks[0].kept_fp32) == (0.0, 0, ())
    assert checks[0].megabytes == pytest.approx(fp32.stat().st_size / 1e6, abs=0.06)
    assert all(one.rows == 30 for one in checks)


def test_a_variant_is_compared_with_fp32_on_the_same_rows(
    build: Callable[..., Biased], check: Callable[..., dict[str, Check]]
) -> None:
    build("int8-static", head=MUCH)
    found = check("int8-static")
    first = found[FP32].accuracy or 0
    # Rows are in turns of three labels, so a third has the label that all of them got.
    assert found["int8-static"].accuracy == pytest.approx(1 / 3, abs=0.15)
    assert found["int8-static"].accuracy_loss == pytest.approx(100 * (first - (found["int8-static"].accuracy or 0)))
    assert "points of accuracy, 5.00 are allowed" in found["int8-static"].problem


def test_each_calibration_row_is_fed_alone_with_the_inputs_that_the_graph_takes(
    build: Callable[..., Biased], check: Callable[..., dict[str, Check]], fp32: Path, trial: Callable[..., Trial]
) -> None:
    fake = build("int8-static")
    check("int8-static")
    names = {value.name for value in onnx.load(fp32).graph.input}
    assert len(fake.calibration) == 8
    for feed, tokens in zip(fake.calibration, trial().calibration, strict=True):
        assert feed.keys() == names
        assert feed["input_ids"].tolist() == [tokens.ids]


@pytest.mark.parametrize(("cpu", "low", "high"), [(AVX2, 60, 64), (VNNI, 120, 128)], ids=["AVX2", "VNNI"])
def test_weights_stay_within_7_bits_where_the_cpu_has_no_int8_dot_product(
    cpu: Cpu, low: int, high: int, fp32: Path, trial: Callable[..., Trial], tmp_path: Path
) -> None:
    """Two products of 255 and 64 fit into 16 signed bits; two of 255 and 65 do not.

    The test runs the real builders.
    """
    given = trial(cpu, variants=list(ALL), accuracy_budget=100)
    _, models = candidates(fp32, tmp_path / "tried", given, lambda _: None)
    for variant in ALL:
        largest = [np.abs(weights.astype(int)).max() for weights in int8_weights(models[variant])]
        assert len(largest) == 14
        assert low <= min(largest) <= max(largest) <= high, variant


def test_a_builder_that_raises_refuses_its_variant_and_the_rest_goes_on(
    build: Callable[..., Biased], check: Callable[..., dict[str, Check]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise NotImplementedError("no such operator\nand much more")

    monkeypatch.setitem(BUILDERS, "int8-static", fail)
    build("int8-nncf")
    found = check("int8-static", "int8-nncf")
    assert found["int8-static"].problem == "it could not be built: NotImplementedError: no such operator"
    assert (found["int8-static"].rows, found["int8-static"].accuracy) == (0, None)
    assert found["int8-nncf"].problem == ""


def test_a_graph_that_cannot_be_loaded_refuses_its_variant_and_the_rest_goes_on(
    build: Callable[..., Biased], check: Callable[..., dict[str, Check]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BUILDERS, "int8-static", lambda source, target, *_: target.write_bytes(b""))
    build("int8-nncf")
    found = check("int8-static", "int8-nncf")
    assert "int8-static.onnx cannot be loaded on CPUExecutionProvider" in found["int8-static"].problem
    assert found["int8-nncf"].problem == ""


def test_a_graph_that_loads_and_does_not_run_refuses_its_variant_and_the_rest_goes_on(
    build: Callable[..., Biased], check: Callable[..., dict[str, Check]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def reshape(source: Path, target: Path, *_: object) -> None:
        model = onnx.load(source)
        producer = next(node for node in model.graph.node if "logits" in node.output)
        producer.output[list(producer.output).index("logits")] = "shaped"
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([7, 7], dtype=np.int64), "no_such_shape"))
        model.graph.node.append(onnx.helper.make_node("Reshape", ["shaped", "no_such_shape"], ["logits"]))
        onnx.save(model, target)

    monkeypatch.setitem(BUILDERS, "int8-static", reshape)
    build("int8-nncf")
    found = check("int8-static", "int8-nncf")
    assert "cannot be reshaped" in found["int8-static"].problem
    assert found["int8-nncf"].problem == ""


# Variants that are saved by keeping groups in fp32.


def test_a_variant_that_narrowly_fails_keeps_its_most_sensitive_group_in_fp32(
    build: Callable[..., Biased], check: Callable[..., dict[str, Check]]
) -> None:
    fake = build("int8-static", block_2=MUCH)
    build("int8-dynamic", head=1.0, block_1=2.0, block_2=MUCH, block_3=3.0, block_4=0.5)
    lost = check("int8-static")["int8-static"]
    assert fake.kept == [set()], "it fails by far, and is not tried again"
    assert (lost.kept_fp32, bool(lost.problem)) == ((), True)
    found = check("int8-static", accuracy_budget=budget_that_narrowly_refuses(lost))["int8-static"]
    assert fake.kept[1:] == [set(), {"block-2"}]
    assert (found.kept_fp32, found.problem, found.accuracy_loss) == (("block-2",), "", 0.0)


def test_two_groups_are_kept_where_one_is_not_enough(
    build: Callable[..., Biased], check: Callable[..., dict[str, Check]]
) -> None:
    fake = build("int8-static", block_2=MUCH, head=MUCH)
    build("int8-dynamic", head=2 * MUCH, block_2=MUCH)
    budget = budget_that_narrowly_refuses(check("int8-static")["int8-static"])
    found = check("int8-static", accuracy_budget=budget)["int8-static"]
    assert fake.kept[2:] == [{"head"}, {"head", "block-2"}]
    assert (found.kept_fp32, found.problem) == (("head", "block-2"), "")


def test_what_cannot_be_saved_is_refused_and_says_what_was_kept(
    build: Callable[..., Biased], check: Callable[..., dict[str, Check]]
) -> None:
    fake = build("int8-static", block_1=MUCH, block_2=MUCH, block_3=MUCH)
    build("int8-dynamic", block_3=3 * MUCH, block_2=2 * MUCH, block_1=MUCH)
    budget = budget_that_narrowly_refuses(check("int8-static")["int8-static"])
    found = check("int8-static", accuracy_budget=budget)["int8-static"]
    assert len(fake.kept) == 2 + MOST_SPARED
    assert found.kept_fp32 == ("block-3", "block-2")
    assert f"{budget:.2f} are allowed" in found.problem


def test_sensitivity_is_measured_a_group_at_a_time_and_once_for_all_variants(
    build: Callable[..., Biased], check: Callable[..., dict[str, Check]]
) -> None:
    moves = {"head": 20.0, "block_1": 5.0, "block_2": 40.0, "block_3": 10.0, "block_4": 30.0}
    measured = build("int8-dynamic", **moves)
    for variant in ("int8-static", "int8-nncf"):
        build(variant, block_2=MUCH)
    budget = budget_that_narrowly_refuses(check("int8-static")["int8-static"])
    assert measured.kept == []
    found = check("int8-static", "int8-nncf", accuracy_budget=budget)
    assert [found[variant].kept_fp32 for variant in ("int8-static", "int8-nncf")] == [("block-2",)] * 2
    groups = {"head", "block-1", "block-2", "block-3", "block-4"}
    # Everything but one group is kept; embeddings and attention are never in int8.
    assert sorted([*groups - kept] for kept in measured.kept) == sorted([name] for name in groups)
    assert len(measured.kept) == len(groups)
    assert measured.reduced == {True}, "as in the variants that it is measured for"


def test_groups_are_ordered_by_how_far_they_move_the_answers(
    build: Callable[..., Biased], fp32: Path, trial: Callable[..., Trial], tmp_path: Path
) -> None:
    build("int8-dynamic", head=20.0, block_1=5.0, block_2=40.0, block_3=10.0, block_4=30.0)
    ready, scratch, given = tmp_path / "prepared.onnx", tmp_path / "scratch.onnx", trial()
    module.prepared(fp32, ready)
    _, reference = given.logits(fp32, CPU, lambda _: None)
    found = module._by_sensitivity(ready, scratch, given, reference)
    assert list(found) == ["block-2", "block-4", "head", "block-3", "block-1"]
    assert found["head"] == node_groups(onnx.load(ready))["head"]
    assert not scratch.exists()


def test_the_head_counts_for_itself_when_its_products_are_gemms(
    fp32: Path, trial: Callable[..., Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real dynamic builder renames a Gemm.

    If the head were not kept, it would move the answers of every group.
    """
    ready, given, seen = tmp_path / "prepared.onnx", trial(), []
    module.prepared(fp32, ready)
    dynamic = BUILDERS["int8-dynamic"]

    def watched(source: Path, target: Path, *others: Any) -> None:
        dynamic(source, target, *others)
        seen.append(len(int8_weights(target)))

    monkeypatch.setitem(BUILDERS, "int8-dynamic", watched)
    _, reference = given.logits(fp32, CPU, lambda _: None)
    module._by_sensitivity(ready, tmp_path / "scratch.onnx", given, reference)
    assert sorted(seen) == [2, 3, 3, 3, 3]


def test_a_full_disk_is_no_refusal(
    fp32: Path, trial: Callable[..., Trial], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(BUILDERS, "int8-static", full)
    with pytest.raises(OSError, match="No space left"):
        candidates(fp32, tmp_path / "tried", trial(variants=["int8-static"]), lambda _: None)
