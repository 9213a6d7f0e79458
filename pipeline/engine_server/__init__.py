"""The engine process; `python -m pipeline.engine_server` is the program."""
