"""Windows, repeats and runs: what is measured, and when."""
