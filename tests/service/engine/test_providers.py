"""Sessions are opened with the cores that they are given, and a provider that is missing is named."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from bentune.bundle.errors import BundleError
from bentune.bundle.plan import CPU, OPENVINO
from service.engine import providers
from service.engine.providers import OPENVINO_REQUIREMENT, available, open_session

FEED = {name: np.ones((2, 5), dtype=np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}


@pytest.fixture
def model(tiny_bundle: Path) -> Path:
    return tiny_bundle / "model/fp32.onnx"


@pytest.fixture
def no_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away the OpenVINO plug-in, whether or not this machine has it.

    The real answer is cached, because a process registers the plug-in once.
    """
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_openvino", None)
    monkeypatch.setattr(providers, "_openvino_devices", providers._openvino_devices.__wrapped__)
    monkeypatch.setattr(providers, "available", available.__wrapped__)


@pytest.mark.usefixtures("no_openvino")
def test_without_the_plug_in_there_is_onnxruntimes_own_provider() -> None:
    assert providers.available() == (CPU,)


@pytest.mark.usefixtures("no_openvino")
def test_openvino_that_is_missing_is_named_with_what_to_install(model: Path) -> None:
    with pytest.raises(BundleError) as caught:
        open_session(model, OPENVINO, slots=1, threads=1)
    assert str(caught.value) == (
        "OpenVINOExecutionProvider is not installed; available: CPUExecutionProvider; "
        "`pip install 'onnxruntime-ep-openvino>=1.8,<1.9'` adds it"
    )


def test_another_provider_that_is_missing_is_named_with_those_that_are_there(model: Path) -> None:
    with pytest.raises(BundleError) as caught:
        open_session(model, "NoSuchProvider", slots=1, threads=1)
    assert str(caught.value) == f"NoSuchProvider is not installed; available: {', '.join(available())}"


@pytest.mark.parametrize(("slots", "threads"), [(1, 1), (2, 1), (1, 3)])
def test_a_session_has_the_threads_of_one_slot_and_they_do_not_spin(model: Path, slots: int, threads: int) -> None:
    session = open_session(model, CPU, slots=slots, threads=threads)
    options = session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (threads, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert session.get_providers() == [CPU]


@pytest.mark.parametrize("content", [b"", b"no graph"])
def test_what_is_no_graph_is_named_with_the_provider(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"bad\.onnx cannot be loaded on CPUExecutionProvider: "):
        open_session(tmp_path / "bad.onnx", CPU, slots=1, threads=1)


def test_a_plug_in_that_is_broken_counts_as_missing(tmp_path: Path) -> None:
    """In a process of its own: a plug-in is registered only once."""
    (tmp_path / "onnxruntime_ep_openvino.py").write_text("def get_library_path(): return '/nowhere/libplugin.so'\n")
    program = "from service.engine.providers import available; print(available())"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {program}"],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "('CPUExecutionProvider',)"), done.stderr


def test_the_requirement_is_what_pip_understands() -> None:
    from packaging.requirements import Requirement

    requirement = Requirement(OPENVINO_REQUIREMENT)
    assert requirement.name == "onnxruntime-ep-openvino"
    assert {clause.operator for clause in requirement.specifier} == {">=", "<"}


@pytest.mark.skipif(OPENVINO not in available(), reason="its plug-in offers a device on Intel's CPUs only")
def test_openvino_gives_what_onnxruntime_gives(model: Path) -> None:
    expected = open_session(model, CPU, slots=1, threads=1).run(["logits"], FEED)[0]
    found = open_session(model, OPENVINO, slots=2, threads=1).run(["logits"], FEED)[0]
    assert found == pytest.approx(expected, abs=1e-3)


def test_no_rewriting_that_is_slower_on_cpus_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime would fuse a residual connection with its LayerNormalization.

    That takes 1.1 ms a text instead of 0.2.
    """
    shape = ["rows", "tokens", 8]
    inputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("a", "b")]
    nodes = [
        onnx.helper.make_node("Add", ["a", "b"], ["sum"]),
        onnx.helper.make_node("LayerNormalization", ["sum", "weight", "bias"], ["logits"], axis=-1),
    ]
    constants = [onnx.numpy_helper.from_array(np.ones(8, np.float32), name) for name in ("weight", "bias")]
    outputs = [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, shape)]
    graph = onnx.helper.make_graph(nodes, "residual", inputs, outputs, constants)
    model, optimized = tmp_path / "model.onnx", tmp_path / "optimized.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), model)
    real = ort.InferenceSession

    def watched(path: str, options: ort.SessionOptions, **named: Any) -> ort.InferenceSession:
        options.optimized_model_filepath = str(optimized)
        return real(path, options, **named)

    monkeypatch.setattr(ort, "InferenceSession", watched)
    open_session(model, CPU, slots=1, threads=1)
    assert [node.op_type for node in onnx.load(optimized).graph.node] == ["Add", "LayerNormalization"]
    real_options = ort.SessionOptions()
    watched(str(model), real_options, providers=[CPU])
    assert [node.op_type for node in onnx.load(optimized).graph.node] == ["SkipLayerNormalization"], "without us"
