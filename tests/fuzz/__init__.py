"""Random valid models compared with ONNX Runtime, and valid models that were damaged on purpose."""
