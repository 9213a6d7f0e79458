"""What a service manager is told, where it has started the server and wants to know (sd_notify)."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

SOCKET_VARIABLE = "NOTIFY_SOCKET"
READY, STOPPING = "READY=1", "STOPPING=1"


def tell_service_manager(state: str) -> None:
    """Send a state to systemd, if this process was started as a unit of Type=notify.

    Only the process that it started has the variable, so that only its state counts.
    """
    path = os.environ.get(SOCKET_VARIABLE, "")
    if not path:
        return
    # In the abstract namespace where it begins with @.
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, suppress(OSError):
        sock.setblocking(False)
        sock.sendto(state.encode(), address)
