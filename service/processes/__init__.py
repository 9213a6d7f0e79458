"""The server's processes: starting, watching, signalling and ending them."""
