"""Ports for servers whose port is chosen before they start."""

from __future__ import annotations

import socket

from loadtest.servers.variants import HOST


def free_ports(count: int) -> int:
    """The first of so many ports in a row that are free now."""
    while True:
        with socket.socket() as first:
            first.bind((HOST, 0))
            port: int = first.getsockname()[1]
            if all(_is_free(port + offset) for offset in range(1, count)):
                return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError):
            return False
    return True
