"""TensorRT: its graph, building an engine of it, and running the engine."""
