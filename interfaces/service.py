"""What servers, clients and the load test take where nothing else is said."""

PORT = 8095
MAX_FRAME_BYTES = 16_384_000
"""Size of the largest message."""
