"""The baseline: preprocessing on the CPU, then one engine behind a lock."""
