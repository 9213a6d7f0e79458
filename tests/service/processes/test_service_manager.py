"""What systemd hears of a server that it has started with Type=notify."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NULL = ("-m", "service", "--handler", "null", "--port", "0")


@pytest.mark.parametrize(("workers", "is_abstract"), [("1", True), ("2", False)])
def test_it_hears_when_the_server_is_ready_and_when_it_stops(
    start: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: str,
    is_abstract: bool,
) -> None:
    name = f"thriftpipe-{os.getpid()}-{workers}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}" if is_abstract else name)
        manager.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if is_abstract else name)
        server = start(*NULL, "--workers", workers)
        assert manager.recv(100) == b"READY=1"
        server.read_until("ready: ")
        server.process.terminate()
        assert manager.recv(100) == b"STOPPING=1"
        assert server.wait() == 0
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(100)
