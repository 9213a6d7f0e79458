"""How many rows of a batch suit a model on this machine: measured once, and kept."""
