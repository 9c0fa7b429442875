"""Sessions of ONNX Runtime: what runs a batch on this machine, and the golden replay that proves it."""
