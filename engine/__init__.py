"""Engines: one ONNX model in, batches of tensors through it."""
