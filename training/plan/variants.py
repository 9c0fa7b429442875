"""Builders of the variants of an exported model: the same graph in int8, by several methods."""

import contextlib
import io
import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from training.plan.fusion import separated

GraphInputs: TypeAlias = Mapping[str, npt.NDArray[Any]]
"""Inputs of one run of a graph, by name."""

Builder: TypeAlias = Callable[[Path, Path, Sequence[GraphInputs], Collection[str], bool], None]
"""Function that reads an fp32 graph and writes a quantized one, from calibration inputs and nodes to keep in fp32.

With the last argument, `reduce_range`, weights stay in [-64, 64], as CPUs without int8 dot products require.
"""

WEIGHTED = ("MatMul", "Gemm")
# Attention products have no weight and stay in fp32. The type is for graphs whose shapes ONNX cannot infer.
WEIGHTS_ONLY = {"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT}


def dynamic(
    source: Path,
    target: Path,
    calibration: Sequence[GraphInputs],  # noqa: ARG001
    keep_fp32: Collection[str],
    reduce_range: bool,
) -> None:
    """Quantize weights to int8, and activations at run time (ONNX Runtime).

    Weights are quantized per channel, and activations per tensor.
    """
    quantize_dynamic(
        source,
        target,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=reduce_range,
        op_types_to_quantize=list(WEIGHTED),
        # The quantizer first replaces every Gemm by a MatMul of this name.
        nodes_to_exclude=[*keep_fp32, *(f"{name}_MatMul" for name in keep_fp32)],
        extra_options=WEIGHTS_ONLY,
    )


def static(
    source: Path, target: Path, calibration: Sequence[GraphInputs], keep_fp32: Collection[str], reduce_range: bool
) -> None:
    """Quantize weights to int8 and inputs of products to uint8 (ONNX Runtime).

    Weights are quantized per channel, and inputs by calibration. The graph is QDQ. Outputs stay in fp32: with quantized
    outputs the products ran at fp32's speed, with three times the label flips.
    """
    quantize_static(
        source,
        target,
        _Reader(calibration),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=reduce_range,
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QUInt8,
        op_types_to_quantize=list(WEIGHTED),
        # QDQ ignores `MatMulConstBOnly`.
        nodes_to_exclude=sorted({*keep_fp32, *node_groups(onnx.load(source)).get("attention", ())}),
        extra_options=WEIGHTS_ONLY | {"OpTypesToExcludeOutputQuantization": list(WEIGHTED)},
    )


def nncf(
    source: Path, target: Path, calibration: Sequence[GraphInputs], keep_fp32: Collection[str], reduce_range: bool
) -> None:
    """Quantize weights and inputs of products to int8 (NNCF, TRANSFORMER).

    The result is smoothed and bias-corrected. Attention products stay in fp32, because int8 makes them no faster on
    ONNX Runtime's CPU provider. Embeddings do too, because the whole int8 table would be dequantized in every run.
    """
    # NNCF sends usage reports over the network unless this is set before its import.
    os.environ["NNCF_CI"] = "1"
    model = onnx.load(source)
    groups = node_groups(model)
    ignored = sorted({*keep_fp32, *groups.get("attention", ()), *groups.get("embeddings", ())})
    with _silent():
        import nncf as toolkit

        quantized = toolkit.quantize(
            model,
            toolkit.Dataset(list(calibration)),
            model_type=toolkit.ModelType.TRANSFORMER,
            preset=toolkit.QuantizationPreset.MIXED,
            subset_size=len(calibration),
            ignored_scope=toolkit.IgnoredScope(names=ignored),
            advanced_parameters=toolkit.AdvancedQuantizationParameters(
                overflow_fix=toolkit.OverflowFix.ENABLE if reduce_range else toolkit.OverflowFix.DISABLE
            ),
        )
    onnx.save(separated(quantized), target)


BUILDERS: dict[str, Builder] = {"int8-dynamic": dynamic, "int8-static": static, "int8-nncf": nncf}


def prepared(fp32: Path, target: Path) -> None:
    """Write `fp32` with inferred shapes and folded constants for the builders."""
    with _silent():
        quant_pre_process(fp32, target, skip_symbolic_shape=True)


def node_groups(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Group the nodes by their sensitivity to int8.

    The groups are `head`, `embeddings`, `attention` products and blocks. The last two products with a weight count as
    the head: pooler and classifier, or the two layers of a head. The other products with a weight form four blocks,
    from the first layers (`block-1`) to the last layers.
    """
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    weighted = [n.name for n in graph.node if n.op_type in WEIGHTED and constants.intersection(n.input)]
    products = [n.name for n in graph.node if n.op_type == "MatMul" and not constants.intersection(n.input)]
    looked_up = [n.name for n in graph.node if n.op_type == "Gather" and n.input[0] in constants]
    groups = {"head": weighted[-2:], "embeddings": looked_up, "attention": products}
    blocks = np.array_split(np.array(weighted[:-2], dtype=object), 4)
    groups |= {f"block-{number}": list(block) for number, block in enumerate(blocks, start=1)}
    return {group: names for group, names in groups.items() if names}


class _Reader(CalibrationDataReader):
    def __init__(self, feeds: Sequence[GraphInputs]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Any:
        return next(self._feeds, None)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Suppress the output and log of quantizers, because the stage has its own bar."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
