"""ONNX's own backend tests, run against ``ramforge.onnx_backend`` and reported."""
