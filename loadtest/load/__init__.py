"""The clients that load a server, and the images that they send."""
