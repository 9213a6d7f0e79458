"""Reading an ONNX graph, and rewriting it: mean and std, batch, precision."""
