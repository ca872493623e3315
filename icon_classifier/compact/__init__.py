"""A smaller export.onnx of almost the same answers, and what the difference is on photos."""
