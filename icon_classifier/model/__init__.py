"""The model that serves: export.onnx, what it says of itself, and what happens to a photo first."""
