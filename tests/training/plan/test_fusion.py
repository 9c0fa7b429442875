"""Int8 graphs respelled: the same answers, and one operator a product, its bias included."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from training.plan.fusion import separated, with_bias

WIDTH = 8


def initializers(**arrays: np.ndarray) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(array, name) for name, array in arrays.items()]


def product(number: int, *, bias: bool = True, axis: int | None = 1, shared: bool = False) -> Any:
    """Return the nodes and constants of one quantized MatMul and its Add.

    With `shared`, its data is that of the first product.
    """
    rng = np.random.default_rng(number)
    data = "data_dq_0" if shared else f"data_dq_{number}"
    attributes = {} if axis is None else {"axis": axis}
    quantization = (
        []
        if shared
        else [
            helper.make_node("QuantizeLinear", ["x", f"s_{number}", f"z_{number}"], [f"data_{number}"], f"q_{number}"),
            helper.make_node(
                "DequantizeLinear", [f"data_{number}", f"s_{number}", f"z_{number}"], [data], f"dq_{number}"
            ),
        ]
    )
    nodes = [
        *quantization,
        helper.make_node(
            "DequantizeLinear",
            [f"w_{number}", f"ws_{number}", f"wz_{number}"],
            [f"weights_{number}"],
            f"wdq_{number}",
            **attributes,
        ),
        helper.make_node("MatMul", [data, f"weights_{number}"], [f"product_{number}"], f"matmul_{number}"),
    ]
    if bias:
        nodes.append(helper.make_node("Add", [f"b_{number}", f"product_{number}"], [f"y_{number}"], f"add_{number}"))
    constants = {
        f"s_{number}": np.float32(0.02),
        f"z_{number}": np.uint8(120),
        # In 7 bits: pairs of products then saturate on no CPU, and the graphs differ by their spelling alone.
        f"w_{number}": rng.integers(-64, 65, (WIDTH, WIDTH), dtype=np.int8),
        f"ws_{number}": rng.uniform(0.01, 0.02, WIDTH).astype(np.float32),
        f"wz_{number}": np.zeros(WIDTH, np.int8),
        f"b_{number}": rng.normal(size=WIDTH).astype(np.float32),
    }
    return nodes, constants


def graph(*products: Any, outputs: list[str]) -> onnx.ModelProto:
    nodes = [node for nodes, _ in products for node in nodes]
    arrays = {name: np.asarray(array) for _, constants in products for name, array in constants.items()}
    shape = ["rows", "tokens", WIDTH]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "products",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in outputs],
            initializers(**arrays),
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    onnx.checker.check_model(model)
    return model


def answers(model: onnx.ModelProto) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).normal(size=(2, 3, WIDTH)).astype(np.float32)
    outputs: list[np.ndarray] = session.run(None, {"x": x})
    return outputs


def kinds(model: onnx.ModelProto) -> Mapping[str, int]:
    return Counter(node.op_type for node in model.graph.node)


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(model.SerializeToString())


def test_a_product_and_its_bias_become_one_operator_with_the_same_answers() -> None:
    model = graph(product(0), product(1), outputs=["y_0", "y_1"])
    fused = with_bias(copy_of(model))
    onnx.checker.check_model(fused)
    assert kinds(fused) == {"QuantizeLinear": 2, "MatMulIntegerToFloat": 2}
    assert [node.domain for node in fused.graph.node if node.op_type == "MatMulIntegerToFloat"] == ["com.microsoft"] * 2
    for found, expected in zip(answers(fused), answers(model), strict=True):
        assert found == pytest.approx(expected, abs=1e-5)
        assert np.abs(expected).max() > 0.1


def test_what_several_products_read_is_quantized_once_and_read_by_each() -> None:
    model = graph(product(0), product(1, shared=True), outputs=["y_0", "y_1"])
    fused = with_bias(copy_of(model))
    assert kinds(fused) == {"QuantizeLinear": 1, "MatMulIntegerToFloat": 2}
    for found, expected in zip(answers(fused), answers(model), strict=True):
        assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("one", "outputs"),
    [
        (product(0, bias=False), ["product_0"]),
        (product(0), ["y_0", "product_0"]),
        (product(0, axis=0), ["y_0"]),
    ],
    ids=["no bias", "the product is an output too", "scales of rows, not of columns"],
)
def test_a_product_that_is_something_else_is_left_as_it_is(one: Any, outputs: list[str]) -> None:
    model = graph(one, outputs=outputs)
    left = with_bias(copy_of(model))
    assert left.graph.node == model.graph.node
    assert left.opset_import == model.opset_import


def test_a_bias_that_is_computed_is_left_as_it_is() -> None:
    nodes, constants = product(0)
    nodes[-1].input[0] = "x"
    model = graph((nodes, constants), outputs=["y_0"])
    assert with_bias(copy_of(model)).graph.node == model.graph.node


@pytest.mark.parametrize("shape", [(), (1,), (1, 3, WIDTH)])
def test_what_is_added_and_no_bias_is_left_as_it_is(shape: tuple[int, ...]) -> None:
    nodes, constants = product(0)
    constants["b_0"] = np.ones(shape, np.float32)
    model = graph((nodes, constants), outputs=["y_0"])
    assert with_bias(copy_of(model)).graph.node == model.graph.node


def test_a_product_that_two_nodes_read_is_left_as_it_is() -> None:
    nodes, constants = product(0)
    nodes.append(helper.make_node("Mul", ["product_0", "product_0"], ["square"], "square"))
    model = graph((nodes, constants), outputs=["y_0", "square"])
    assert with_bias(copy_of(model)).graph.node == model.graph.node


def test_nodes_without_names_are_not_confused() -> None:
    """Names are only for people: a graph may leave them out or repeat one."""
    model = graph(product(0), product(1), outputs=["y_0", "y_1"])
    for node in model.graph.node:
        node.name = ""
    fused = with_bias(copy_of(model))
    assert kinds(fused) == {"QuantizeLinear": 2, "MatMulIntegerToFloat": 2}
    for found, expected in zip(answers(fused), answers(model), strict=True):
        assert found == pytest.approx(expected, abs=1e-5)


def test_shared_and_signed_activations_are_separated_and_unsigned() -> None:
    nodes, constants = product(0)
    constants["z_0"] = np.int8(-8)
    model = graph((nodes, constants), product(1, shared=True), outputs=["y_0", "y_1"])
    apart = separated(copy_of(model))
    onnx.checker.check_model(apart)
    assert kinds(apart) == Counter(kinds(model)) + Counter(DequantizeLinear=1)
    products = [node for node in apart.graph.node if node.op_type == "MatMul"]
    assert len({node.input[0] for node in products}) == 2
    zero_point = next(one for one in apart.graph.initializer if one.name == "z_0")
    assert (zero_point.data_type, int(numpy_helper.to_array(zero_point))) == (TensorProto.UINT8, 120)
    for found, expected in zip(answers(apart), answers(model), strict=True):
        assert found == pytest.approx(expected, abs=1e-5)


def test_gelu_behind_a_fused_bias_is_one_operator(tmp_path: Path) -> None:
    """The fusing avoids BiasGelu, which takes twice as long.

    With the bias apart, ONNX Runtime makes BiasGelu of it.
    """
    nodes, constants = product(0)
    constants |= {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}
    for kind, inputs, output in [
        ("Div", ["y_0", "root"], "scaled"),
        ("Erf", ["scaled"], "erf"),
        ("Add", ["erf", "one"], "shifted"),
        ("Mul", ["y_0", "shifted"], "twice"),
        ("Mul", ["twice", "half"], "gelu"),
    ]:
        nodes.append(helper.make_node(kind, inputs, [output], output))
    model = graph((nodes, constants), outputs=["gelu"])
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(with_bias(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert kinds(onnx.load(tmp_path / "optimized.onnx")) == {"QuantizeLinear": 1, "MatMulIntegerToFloat": 1, "Gelu": 1}
