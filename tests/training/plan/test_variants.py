"""The int8 variants of a real, small transformer: what is in their graphs, and what they answer."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from bentune.bundle.hardware import describe
from bentune.bundle.manifest import open_bundle
from service.tasks.tokenizer import TextTokenizer, Tokens, pad
from training.plan.fusion import separated
from training.plan.variants import BUILDERS, WEIGHTED, GraphInputs, node_groups, prepared
from training.tasks.rows import read_rows

ROOT = Path(__file__).parents[3]
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# Operators as which ONNX Runtime runs an int8 product.
FUSED = {"MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm"}
DOT_PRODUCT = pytest.mark.skipif(
    not describe().has_int8_dot_product, reason="products of weights in 8 bits saturate on this CPU"
)


class Rows:
    """Test and training rows as tokens, and what a graph answers."""

    def __init__(self, tiny_bundle: Path, tiny_run: Path) -> None:
        bundle = open_bundle(tiny_bundle)
        self.settings = bundle.processor
        tokenizer = TextTokenizer(tiny_bundle / "processor/tokenizer.json", bundle.processor, 24)
        self.held_out = [
            tokenizer.encode(text, truncate=True) for text in read_rows(tiny_run / "data/test.parquet").texts
        ]
        self.training = [
            tokenizer.encode(text, truncate=True) for text in read_rows(tiny_run / "data/train.parquet").texts[:16]
        ]

    def feed(self, rows: Collection[Tokens]) -> GraphInputs:
        padded = pad(list(rows), self.settings)
        return {name: padded[name] for name in INPUTS}

    def answers(self, model: Path, size: int = 1) -> np.ndarray:
        """Logits of the test rows in batches of `size`."""
        session = opened(model)
        batches = [self.held_out[start : start + size] for start in range(0, len(self.held_out), size)]
        return np.concatenate([session.run(["logits"], dict(self.feed(batch)))[0] for batch in batches])


def opened(model: Path, optimized: Path | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def rows(tiny_bundle: Path, tiny_run: Path) -> Rows:
    return Rows(tiny_bundle, tiny_run)


@pytest.fixture(scope="module")
def fp32(tiny_run: Path) -> Path:
    return tiny_run / "export/model/fp32.onnx"


@pytest.fixture(scope="module")
def ready(fp32: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("prepared") / "prepared.onnx"
    prepared(fp32, target)
    return target


@pytest.fixture(scope="module")
def build(ready: Path, rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Builds a variant, each only once: NNCF takes seconds."""
    directory, built = tmp_path_factory.mktemp("variants"), {}

    # Weights in 7 bits unless a test wants others: their products are right on every CPU.
    def call(variant: str, keep_fp32: tuple[str, ...] = (), reduce_range: bool = True) -> Path:
        key = variant, keep_fp32, reduce_range
        if key not in built:
            target = directory / f"{len(built)}.onnx"
            BUILDERS[variant](ready, target, [rows.feed([row]) for row in rows.training], keep_fp32, reduce_range)
            built[key] = target
        return built[key]

    return call


def in_int8(model: Path) -> list[onnx.TensorProto]:
    """Weight matrices that are stored in a byte a value."""
    kinds = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    return [one for one in onnx.load(model).graph.initializer if one.data_type in kinds and len(one.dims) == 2]


def weighted(model: Path) -> list[str]:
    """Return the names of the products with a weight.

    They are found otherwise than in the source: a weight is a big constant.
    """
    graph = onnx.load(model).graph
    weights = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    return [node.name for node in graph.node if node.op_type in ("MatMul", "Gemm") and weights.intersection(node.input)]


def optimized(model: Path, directory: Path) -> onnx.ModelProto:
    """The graph that ONNX Runtime makes of it and runs."""
    target = directory / "optimized.onnx"
    opened(model, target)
    return onnx.load(target)


# The graph that variants are built from.


def test_preparing_changes_no_answer(rows: Rows, fp32: Path, ready: Path) -> None:
    assert rows.answers(ready) == pytest.approx(rows.answers(fp32), abs=1e-5)


def test_every_node_has_a_group_or_none(ready: Path) -> None:
    """Two layers: six products with a weight each, and the head's two."""
    groups = node_groups(onnx.load(ready))
    products = weighted(ready)
    assert len(products) == 14
    assert groups["head"] == products[-2:]
    blocks = [groups[f"block-{number}"] for number in (1, 2, 3, 4)]
    assert [name for block in blocks for name in block] == products[:-2]
    assert [len(block) for block in blocks] == [3, 3, 3, 3]
    assert len(groups["attention"]) == 4, "two products a layer have no weight"
    assert len(groups["embeddings"]) >= 3, "words, places, and which text of a pair"
    names = [name for group in groups.values() for name in group]
    assert len(names) == len(set(names))
    assert set(names) <= {node.name for node in onnx.load(ready).graph.node}
    kinds = {node.name: node.op_type for node in onnx.load(ready).graph.node}
    assert {kinds[name] for name in groups["embeddings"]} == {"Gather"}


# The variants themselves.


@pytest.mark.parametrize("reduce_range", [True, pytest.param(False, marks=DOT_PRODUCT)], ids=["7 bits", "8 bits"])
@pytest.mark.parametrize("variant", BUILDERS)
def test_the_weights_of_every_product_are_in_int8_and_the_answers_near_fp32s(
    variant: str, reduce_range: bool, build: Callable[..., Path], rows: Rows, fp32: Path
) -> None:
    model = build(variant, reduce_range=reduce_range)
    onnx.checker.check_model(onnx.load(model))
    assert len(in_int8(model)) == 14
    expected, found = rows.answers(fp32), rows.answers(model)
    assert found.shape == expected.shape == (60, 3)
    difference = np.abs(found - expected)
    assert 0 < difference.mean() < 0.05 * np.abs(expected).max()
    assert (found.argmax(-1) == expected.argmax(-1)).mean() >= 0.95


@pytest.mark.parametrize(
    "variant",
    [
        "int8-dynamic",
        # ONNX Runtime knows MatMulConstBOnly for its other formats only: as QDQ every MatMul is quantized.
        "int8-static",
        "int8-nncf",
    ],
)
def test_attention_products_stay_in_fp32(variant: str, build: Callable[..., Path], ready: Path) -> None:
    model = onnx.load(build(variant))
    nodes = {node.name: node for node in model.graph.node}
    made_by = {value: node.op_type for node in model.graph.node for value in node.output}
    for name in node_groups(onnx.load(ready))["attention"]:
        assert nodes[name].op_type == "MatMul"
        assert not {made_by.get(value) for value in nodes[name].input} & {"DequantizeLinear", "QuantizeLinear"}


@pytest.mark.parametrize("variant", BUILDERS)
def test_embeddings_stay_in_fp32(variant: str, build: Callable[..., Path], ready: Path) -> None:
    model = onnx.load(build(variant))
    nodes = {node.name: node for node in model.graph.node}
    floats = {tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    for name in node_groups(onnx.load(ready))["embeddings"]:
        assert nodes[name].input[0] in floats


@pytest.mark.parametrize("variant", BUILDERS)
def test_a_group_that_is_kept_is_in_fp32_and_nothing_else_is(
    variant: str, build: Callable[..., Path], ready: Path, rows: Rows, fp32: Path
) -> None:
    kept = node_groups(onnx.load(ready))["head"]
    model = build(variant, tuple(kept))
    assert len(in_int8(model)) == 14 - len(kept)
    graph = onnx.load(model).graph
    floats = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    # quantize_dynamic makes a MatMul and an Add of a Gemm.
    nodes = {node.name.removesuffix("_MatMul"): node for node in graph.node}
    made_by = {value: node.op_type for node in graph.node for value in node.output}
    for name in kept:
        assert nodes[name].op_type in WEIGHTED
        assert nodes[name].input[1] in floats
        assert made_by.get(nodes[name].input[0]) != "DequantizeLinear"
    expected = rows.answers(fp32)
    assert np.abs(rows.answers(model) - expected).mean() < 0.05 * np.abs(expected).max()


def test_answers_of_dynamic_int8_depend_on_the_batch_and_the_others_do_not(
    build: Callable[..., Path], rows: Rows
) -> None:
    """The one scale of dynamic int8 for all activations is that of the batch.

    Fixed scales do not depend on the batch.
    """
    moved = {variant: np.abs(rows.answers(build(variant), 8) - rows.answers(build(variant))) for variant in BUILDERS}
    assert moved["int8-dynamic"].max() > 1e-3
    for variant in ("int8-static", "int8-nncf"):
        # A sum that is rounded otherwise may still fall into the next of 255 steps.
        assert np.median(moved[variant]) < 1e-4
        assert moved[variant].max() < moved["int8-dynamic"].max()


# Graphs that ONNX Runtime makes of the variants.


@pytest.mark.parametrize(("variant", "in_fp32"), [("int8-dynamic", 0), ("int8-static", 0), ("int8-nncf", 2)])
def test_products_run_in_int8(variant: str, in_fp32: int, build: Callable[..., Path], tmp_path: Path) -> None:
    """Weights that are dequantized in every run gain nothing.

    This is what happens when fusing fails. NNCF leaves the bias of a Gemm in fp32, so that the two of the head are not
    fused; they see one token of a text.
    """
    model = optimized(build(variant), tmp_path)
    kinds = Counter(node.op_type for node in model.graph.node)
    assert len(dequantized_weights(model)) == in_fp32, kinds
    assert sum(kinds[kind] for kind in FUSED) >= 14 - in_fp32, kinds


def dequantized_weights(model: onnx.ModelProto) -> list[str]:
    """Weight matrices that are turned into fp32 in every run."""
    matrices = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    return [
        node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in matrices
    ]


def test_products_of_nncf_become_one_operator_each_and_as_spelled_by_nncf_they_do_not(
    build: Callable[..., Path],
    ready: Path,
    rows: Rows,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kinds = Counter(node.op_type for node in onnx.load(ready).graph.node)
    assert kinds["Gemm"] == 2
    model = optimized(build("int8-nncf"), tmp_path)
    constants = {tensor.name for tensor in model.graph.initializer}
    fused = [node for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(fused) == 14 - kinds["Gemm"]
    assert all(node.input[1] in constants for node in fused)
    # The same, left as NNCF wrote it.
    monkeypatch.setattr("training.plan.variants.separated", lambda quantized: quantized)
    plain = tmp_path / "plain.onnx"
    BUILDERS["int8-nncf"](ready, plain, [rows.feed([row]) for row in rows.training], (), True)
    before = Counter(node.op_type for node in optimized(plain, tmp_path).graph.node)
    assert before["MatMulIntegerToFloat"] < len(fused)
    # Only the spelling changes.
    onnx.save(separated(onnx.load(plain)), tmp_path / "again.onnx")
    unfused, again = opened_as_written(plain), opened_as_written(tmp_path / "again.onnx")
    for row in rows.held_out:
        feed = dict(rows.feed([row]))
        assert again.run(["logits"], feed)[0] == pytest.approx(unfused.run(["logits"], feed)[0], abs=1e-5)


def opened_as_written(model: Path) -> ort.InferenceSession:
    """Without any rewriting, so that only the graph itself counts."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def test_nncf_does_not_report_its_use(ready: Path, tmp_path: Path) -> None:
    """The test runs in a process of its own, with NNCF not imported.

    No sender may be asked to send, and no address may be looked up.
    """
    program = f"""
import socket, sys
from pathlib import Path
import numpy as np
asked = []
real = socket.getaddrinfo
socket.getaddrinfo = lambda host, *more, **named: asked.append(host) or real(host, *more, **named)
connect = socket.socket.connect
socket.socket.connect = lambda self, address: asked.append(address) or connect(self, address)
from training.plan.variants import BUILDERS
assert "nncf" not in sys.modules
feed = {{name: np.ones((1, 5), dtype=np.int64) for name in {INPUTS!r}}}
BUILDERS["int8-nncf"](Path({str(ready)!r}), Path({str(tmp_path / "out.onnx")!r}), [feed] * 2, (), True)
import nncf.telemetry.wrapper as wrapper
print(asked, type(wrapper.telemetry).__name__)
"""
    environment = {name: value for name, value in os.environ.items() if name != "NNCF_CI"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "[] MagicMock\n", "its stub, and nothing was asked"
