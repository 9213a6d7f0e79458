"""An ONNX graph as a torch module."""
