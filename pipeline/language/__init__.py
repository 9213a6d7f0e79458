"""A pipeline's configuration: its grammar, settings and graph."""
