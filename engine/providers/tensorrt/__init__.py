"""TensorRT: the graph that it gets, building an engine from that, and running it."""
