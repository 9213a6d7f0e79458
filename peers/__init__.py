"""Servers of other makers, each a program for a virtual environment of its own.

`python -m peers.NAME` serves what `interfaces.peers.Setup` says. Only `loadtest peers` starts them.
"""
