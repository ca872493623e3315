"""From export.pkl to export.onnx: the pickle is read, never executed."""
