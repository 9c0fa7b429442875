"""An engine proven on golden rows: a variant that fails gives way to fp32, and fp32 to nothing."""

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from bentune.bundle.errors import BundleError
from bentune.bundle.hardware import Cpu
from bentune.bundle.manifest import Bundle, open_bundle
from bentune.bundle.plan import CPU, FP32, OPENVINO, Entry, Plan, scores_key
from service.engine import engine as engine_module
from service.engine import proven as module
from service.engine.golden import Replay
from service.engine.memory import needed_bytes
from service.engine.predictor import Predictor
from service.engine.proven import Proven
from service.engine.runtime import Runtime, in_fp32
from service.tasks.registry import task_of
from service.tasks.task import Task

HERE = Cpu(model="a test", isa=("avx2",), cores=2)
INT8 = scores_key("int8-static", CPU)


@pytest.fixture(scope="module")
def task(tiny_bundle: Path) -> Task:
    return task_of(open_bundle(tiny_bundle))


def threads_of(predictor: Predictor) -> int:
    threads: int = predictor.session._session.get_session_options().intra_op_num_threads
    return threads


def entry(variant: str, slots: int = 2, threads: int = 1, *, provider: str = CPU) -> Entry:
    speed = {"inputs_per_second": 10.0, "lone_ms": 1.0, "padding": 0.0, "token_budget": 256}
    return Entry(variant=variant, provider=provider, slots=slots, threads=threads, **speed)


def plan(*entries: Entry) -> Plan:
    best = entries[0]
    return Plan(variant=best.variant, provider=best.provider, token_budget=333, cpu=HERE, measured=entries)


def scale_answers(file: Path, factor: float) -> None:
    """The graph with its logits times `factor`."""
    model = onnx.load(file)
    producer = next(node for node in model.graph.node if "logits" in node.output)
    producer.output[list(producer.output).index("logits")] = "plain_logits"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(factor), "logits_factor"))
    model.graph.node.append(onnx.helper.make_node("Mul", ["plain_logits", "logits_factor"], ["logits"]))
    onnx.save(model, file)


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Bundle:
    """Return the tiny bundle with a second variant, which its plan chooses.

    The golden rows hold the scores of that variant.
    """
    root = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, root)
    shutil.copyfile(root / "model/fp32.onnx", root / "model/int8-static.onnx")
    original = open_bundle(tiny_bundle)
    fp32 = scores_key(FP32, CPU)
    golden = [row.model_copy(update={"scores": row.scores | {INT8: row.scores[fp32]}}) for row in original.golden]
    return replace(original, root=root, golden=golden, plan=plan(entry("int8-static"), entry(FP32, 1, 2)))


@pytest.fixture
def prove(task: Task, caplog: pytest.LogCaptureFixture) -> Callable[..., tuple[Proven, list[str]]]:
    """Prove a bundle; also gives the warnings that it logged."""

    def call(bundle: Bundle, cpu: Cpu = HERE, memory: int | None = None) -> tuple[Proven, list[str]]:
        logging.getLogger("bentoml").propagate = True
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="bentoml.bentune"):
            proven = Proven(bundle, cpu, task, memory)
        assert all(record.levelno == logging.WARNING or memory for record in caplog.records)
        return proven, [record.getMessage() for record in caplog.records]

    return call


def test_a_bundle_that_gives_its_golden_scores_runs_as_planned(bundle: Bundle, prove: Callable[..., tuple]) -> None:
    proven, logged = prove(bundle)
    assert proven.runtime == Runtime("int8-static", CPU, 2, 1, 256)
    assert (proven.fallbacks, logged) == ([], [])
    assert proven.engine is not None
    assert (proven.replayed.rows, proven.replayed.failed) == (12, [])
    assert proven.replayed.largest_difference < 1e-5


def test_a_variant_that_gives_other_scores_here_gives_way_to_fp32(bundle: Bundle, prove: Callable[..., tuple]) -> None:
    scale_answers(bundle.root / "model/int8-static.onnx", 0.2)
    proven, logged = prove(bundle)
    assert proven.runtime == Runtime(FP32, CPU, 2, 1, 256), "what runs anywhere: a slot a core"
    assert proven.engine is not None
    assert proven.replayed.passed
    (fallback,) = proven.fallbacks
    assert fallback.reason == "golden"
    assert fallback.message.startswith(f"int8-static on {CPU}: 12 of 12 golden rows got other scores, by up to 0.")
    assert logged == [f"{bundle.tag} does not run as planned (golden): {fallback.message}"]
    answers = proven.engine.slots[0].score([(row.text, row.text_pair) for row in bundle.golden])
    assert [answer[0]["label"] for answer in answers] == [row.label for row in bundle.golden]


def test_a_variant_without_golden_scores_of_its_own_is_not_trusted(bundle: Bundle, prove: Callable[..., tuple]) -> None:
    fp32 = scores_key(FP32, CPU)
    golden = [row.model_copy(update={"scores": {fp32: row.scores[fp32]}}) for row in bundle.golden]
    proven, _ = prove(replace(bundle, golden=golden))
    assert proven.runtime.variant == FP32
    assert [fallback.reason for fallback in proven.fallbacks] == ["golden"]


@pytest.mark.parametrize("content", [b"", b"no graph"])
def test_a_variant_that_cannot_be_loaded_gives_way_to_fp32(
    content: bytes, bundle: Bundle, prove: Callable[..., tuple]
) -> None:
    (bundle.root / "model/int8-static.onnx").write_bytes(content)
    proven, logged = prove(bundle)
    assert proven.runtime == Runtime(FP32, CPU, 2, 1, 256)
    assert proven.engine is not None
    (fallback,) = proven.fallbacks
    assert fallback.reason == "provider"
    assert "int8-static.onnx cannot be loaded on CPUExecutionProvider" in fallback.message
    assert logged == [f"{bundle.tag} does not run as planned (provider): {fallback.message}"]


def test_a_variant_that_loads_and_does_not_run_gives_way_to_fp32(
    bundle: Bundle, prove: Callable[..., tuple], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = engine_module.replay

    def broken(predictor: Predictor, golden: Sequence[object], key: str) -> Replay:
        if key == INT8:
            raise RuntimeError("a node cannot be run")
        return real(predictor, golden, key)  # type: ignore[arg-type]

    monkeypatch.setattr(engine_module, "replay", broken)
    proven, logged = prove(bundle)
    assert (proven.runtime.variant, proven.engine is not None) == (FP32, True)
    assert [(one.reason, one.message) for one in proven.fallbacks] == [("provider", "a node cannot be run")]
    assert len(logged) == 1


def test_what_the_hardware_forbids_is_logged_and_told_too(bundle: Bundle, prove: Callable[..., tuple]) -> None:
    proven, logged = prove(bundle, HERE.model_copy(update={"isa": ()}))
    assert proven.runtime == Runtime(FP32, CPU, 1, 2, 256)
    assert [fallback.reason for fallback in proven.fallbacks] == ["isa"]
    assert len(logged) == 1
    assert "(isa): int8-static on CPUExecutionProvider with 2 x 1 cores was proven with avx2" in logged[0]


def test_fallbacks_add_up(bundle: Bundle, prove: Callable[..., tuple], monkeypatch: pytest.MonkeyPatch) -> None:
    """The winner needs a missing provider, and the next best gives other scores here."""
    monkeypatch.setattr(module, "available", lambda: (CPU,))
    scale_answers(bundle.root / "model/int8-static.onnx", 0.2)
    both = plan(entry("int8-nncf", provider=OPENVINO), entry("int8-static"), entry(FP32, 1, 2))
    proven, logged = prove(replace(bundle, plan=both))
    assert proven.runtime.variant == FP32
    assert [fallback.reason for fallback in proven.fallbacks] == ["provider", "golden"]
    assert len(logged) == 2


@pytest.mark.parametrize("winner", ["int8-static", FP32])
def test_when_not_even_fp32_gives_the_golden_scores_there_is_no_engine(
    winner: str, bundle: Bundle, prove: Callable[..., tuple]
) -> None:
    for name in (FP32, "int8-static"):
        scale_answers(bundle.root / f"model/{name}.onnx", 0.2)
    proven, _ = prove(replace(bundle, plan=plan(entry(winner, 1, 2))))
    assert proven.engine is None
    assert proven.runtime.variant == FP32
    assert (proven.replayed.rows, len(proven.replayed.failed)) == (12, 12)
    assert [fallback.reason for fallback in proven.fallbacks] == (["golden"] if winner != FP32 else [])


def test_a_fallback_that_would_not_fit_into_the_memory_is_not_loaded(
    bundle: Bundle, prove: Callable[..., tuple], monkeypatch: pytest.MonkeyPatch
) -> None:
    """int8 was checked before the process began, and fp32 has larger weights.

    The kernel would kill the process that serves.
    """
    fp32 = bundle.root / "model/fp32.onnx"
    with fp32.open("ab") as file:
        file.truncate(400_000_000)  # it is not loaded, and the file has holes
    scale_answers(bundle.root / "model/int8-static.onnx", 0.2)
    enough = needed_bytes(bundle, Runtime("int8-static", CPU, 2, 1, 256))
    proven, logged = prove(bundle, memory=enough)
    assert proven.engine is None
    assert (proven.runtime.variant, len(proven.replayed.failed)) == ("int8-static", 12)
    assert len(logged) == 2
    needed = needed_bytes(bundle, in_fp32(bundle.plan, HERE)) / 1e6
    assert f"does not fall back to fp32: the memory limit is {enough / 1e6:.0f} MB" in logged[1]
    assert f"takes about {needed:.0f} MB" in logged[1]


def test_a_fallback_that_fits_is_loaded(bundle: Bundle, prove: Callable[..., tuple]) -> None:
    scale_answers(bundle.root / "model/int8-static.onnx", 0.2)
    proven, _ = prove(bundle, memory=needed_bytes(bundle, in_fp32(bundle.plan, HERE)))
    assert proven.engine is not None
    assert proven.runtime.variant == FP32


def test_a_bundle_without_golden_rows_proves_nothing(bundle: Bundle, prove: Callable[..., tuple]) -> None:
    assert prove(replace(bundle, golden=[]))[0].engine is None


@pytest.mark.parametrize("winner", ["int8-static", FP32])
def test_when_not_even_fp32_can_be_loaded_the_process_ends(
    winner: str, bundle: Bundle, prove: Callable[..., tuple]
) -> None:
    for name in (FP32, "int8-static"):
        (bundle.root / f"model/{name}.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"fp32\.onnx cannot be loaded"):
        prove(replace(bundle, plan=plan(entry(winner))))


def test_one_session_that_fails_is_enough(
    bundle: Bundle, prove: Callable[..., tuple], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More threads take the sums of a product in another order.

    int8 may then round otherwise.
    """
    real = engine_module.replay

    def only_wide_fails(predictor: Predictor, golden: Sequence[object], key: str) -> Replay:
        found = real(predictor, golden, key)  # type: ignore[arg-type]
        return replace(found, failed=[7]) if key == INT8 and threads_of(predictor) == 2 else found

    monkeypatch.setattr(engine_module, "replay", only_wide_fails)
    proven, _ = prove(bundle)
    assert proven.runtime.variant == FP32
    assert "1 of 12 golden rows" in proven.fallbacks[0].message
