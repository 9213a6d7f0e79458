"""The commands `show`, `check` and `run` of `python -m pipeline`."""
