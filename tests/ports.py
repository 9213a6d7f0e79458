"""Ports for servers whose port is chosen before they start."""

from __future__ import annotations

import itertools
import os
import socket

# Below those that the kernel gives to connections, and others for each process of tests, whatever
# else is tested on this machine.
_PORTS_OF_A_TEST = 8
_FIRST_PORTS = itertools.count(20_000 + 96 * (os.getpid() % 120), _PORTS_OF_A_TEST)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A port of 127.0.0.1 that is free now, as are the next ones."""
    return next(
        first
        for first in _FIRST_PORTS
        if all(is_free(first + offset) for offset in range(_PORTS_OF_A_TEST))
    )
