"""Fuzzing, chaos and soak: what the server promises, checked against a real one over its wire."""
