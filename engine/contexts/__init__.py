"""Execution contexts of the CPU and of NVIDIA GPUs, whichever library computes."""
