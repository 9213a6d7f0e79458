"""The log: text or JSON, to stderr or a file, written without blocking any other thread."""
