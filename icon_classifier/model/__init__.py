"""The converted model, export.onnx: its metadata, the transforms of a photo, and predictions."""
