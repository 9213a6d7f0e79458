"""Bytes to calls and back: transports, TLS, framing, and what they may cost."""
