"""Convert export.pkl to export.onnx: the pickle is parsed, never executed."""
