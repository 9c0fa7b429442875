"""Execution providers: those of this process, and their sessions on a share of the cores."""

import functools
import json
from pathlib import Path

import onnxruntime as ort

from bentune.bundle.errors import BundleError
from bentune.bundle.plan import CPU, OPENVINO

OPENVINO_REQUIREMENT = "onnxruntime-ep-openvino>=1.8,<1.9"
"""Package of OPENVINO for pip: the extra `openvino`, and part of a Bento whose plan chose it."""

SLOWER = ["SkipLayerNormFusion"]
"""Optimizers of ONNX Runtime that make graphs slower on CPUs: this one trades a vectorized kernel for a plain one."""


@functools.cache
def available() -> tuple[str, ...]:
    """Return the providers that this process can use.

    They are ONNX Runtime's own for CPUs and, if installed, OpenVINO.
    """
    return (CPU, OPENVINO) if _openvino_devices() else (CPU,)


def open_session(model_file: Path, provider: str, *, slots: int, threads: int) -> ort.InferenceSession:
    """Load a graph to be run by `slots` threads at a time, each on `threads` cores.

    All share one copy of the weights. ONNX Runtime sizes its pool from the host's cores, not from the cgroup
    (onnxruntime issue 29510), so the threads are always set. Raises BundleError when the file cannot be loaded or the
    provider is missing.
    """
    if provider not in available():
        hint = f"; `pip install '{OPENVINO_REQUIREMENT}'` adds it" if provider == OPENVINO else ""
        raise BundleError(f"{provider} is not installed; available: {', '.join(available())}{hint}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # An idle spinning thread burns a core that another slot, or another pod, could use.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        if provider == CPU:
            return ort.InferenceSession(str(model_file), options, providers=[CPU], disabled_optimizers=SLOWER)
        cpu = {"INFERENCE_NUM_THREADS": str(slots * threads), "NUM_STREAMS": str(slots)}
        options.add_provider_for_devices(_openvino_devices()[:1], {"load_config": json.dumps({"CPU": cpu})})
        return ort.InferenceSession(str(model_file), options)
    except Exception as error:  # ONNX Runtime has no common base for its load errors
        raise BundleError(f"{model_file} cannot be loaded on {provider}: {error}") from error


@functools.cache
def _openvino_devices() -> list[ort.OrtEpDevice]:
    """Return OpenVINO's CPU device; a process may register the plug-in only once."""
    try:
        import onnxruntime_ep_openvino as plugin

        ort.register_execution_provider_library(OPENVINO, plugin.get_library_path())
    except Exception:  # not installed, or not for this platform; ONNX Runtime has no common base for its errors
        return []
    cpu = ort.OrtHardwareDeviceType.CPU
    return [device for device in ort.get_ep_devices() if device.ep_name == OPENVINO and device.device.type == cpu]
