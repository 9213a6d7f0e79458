"""Measures the runtime itself: how it batches, what it costs, and that it loses nothing."""
