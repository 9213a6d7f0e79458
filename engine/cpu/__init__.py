"""The cores and the instructions that this process may use."""
