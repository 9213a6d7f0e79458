"""Nodes, queues and instances at work."""
