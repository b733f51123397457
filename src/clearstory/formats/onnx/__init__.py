"""ONNX: models as graphs for onnxruntime."""
