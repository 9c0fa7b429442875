"""Rewrites of int8 graphs, so that ONNX Runtime's CPU provider runs each product with its bias as one operator."""

import numpy as np
import onnx

CONTRIB = "com.microsoft"


def separated(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite `model` in place to the QDQ form that ONNX Runtime fuses.

    On x86 this form is fused into int8 products. ONNX Runtime needs activations in uint8 and a separate
    DequantizeLinear for every product. Where several products share a DequantizeLinear, it dequantizes their weights in
    every run and computes in fp32.
    """
    graph = model.graph
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    for name in {node.input[2] for node in graph.node if node.op_type == "QuantizeLinear"}:
        zero_point = onnx.numpy_helper.to_array(initializers[name])
        if zero_point.dtype == np.int8:
            shifted = (zero_point.astype(np.int16) + 128).astype(np.uint8)
            initializers[name].CopyFrom(onnx.numpy_helper.from_array(shifted, name))
    readers = _readers(graph)
    nodes = []
    for node in graph.node:
        nodes.append(node)
        if node.op_type == "DequantizeLinear":
            for number, (reader, place) in enumerate(readers.get(node.output[0], [])[1:], start=1):
                copy = onnx.NodeProto()
                copy.CopyFrom(node)
                copy.name, copy.output[0] = f"{node.name}_{number}", f"{node.output[0]}_{number}"
                reader.input[place] = copy.output[0]
                nodes.append(copy)
    return _with(model, nodes)


def with_bias(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fuse every dequantized MatMul and its Add into MatMulIntegerToFloat.

    `model` is changed in place. ONNX Runtime itself fuses a MatMul with its two DequantizeLinear, but adds the bias in
    a separate pass over the activations, in which GELU is fused as the slower BiasGelu.
    """
    graph = model.graph
    made_by = {value: node for node in graph.node for value in node.output}
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    readers = _readers(graph)
    fused: dict[str, onnx.NodeProto] = {}
    gone = set()
    for product in graph.node:
        followers = readers.get(product.output[0], []) if product.op_type == "MatMul" else []
        if len(followers) != 1 or followers[0][0].op_type != "Add" or product.output[0] in outputs:
            continue
        data, weights = (made_by.get(value) for value in product.input)
        add, place = followers[0]
        bias = add.input[1 - place]
        if not (data and weights and _is_dequantized(data) and _is_dequantized(weights)):
            continue
        # The operator would read any other summand as a bias.
        if shapes.get(bias) == shapes.get(weights.input[0], [])[1:]:
            operands = [operand for pair in zip(data.input, weights.input, strict=True) for operand in pair]
            fused[add.output[0]] = onnx.helper.make_node(
                "MatMulIntegerToFloat", [*operands, bias], add.output, name=product.name, domain=CONTRIB
            )
            gone.add(product.output[0])
    nodes = [fused.get(node.output[0], node) for node in graph.node if node.output[0] not in gone]
    read = {value for node in nodes for value in node.input}
    nodes = [node for node in nodes if node.op_type != "DequantizeLinear" or node.output[0] in read]
    if fused and not any(one.domain == CONTRIB for one in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(CONTRIB, 1))
    return _with(model, nodes)


def _is_dequantized(node: onnx.NodeProto) -> bool:
    """Return True for a DequantizeLinear with a zero point, by tensor or last axis."""
    axes = [attribute.i for attribute in node.attribute if attribute.name == "axis"]
    return node.op_type == "DequantizeLinear" and len(node.input) == 3 and axes in ([], [1], [-1])


def _readers(graph: onnx.GraphProto) -> dict[str, list[tuple[onnx.NodeProto, int]]]:
    """Map each value to the nodes that read it and the positions of their inputs."""
    readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    for node in graph.node:
        for place, value in enumerate(node.input):
            readers.setdefault(value, []).append((node, place))
    return readers


def _with(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    graph = model.graph
    del graph.node[:]
    graph.node.extend(copies)
    del graph.value_info[:]  # it names the old types
    return model
