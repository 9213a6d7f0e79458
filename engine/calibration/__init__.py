"""How many rows and contexts suit a model on this machine: measured once, and kept."""
