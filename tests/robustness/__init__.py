"""Fuzzing, chaos and soak against real servers: `python -m tests.robustness`."""
