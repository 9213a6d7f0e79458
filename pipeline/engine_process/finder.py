"""Finds the engine process of a server's workers, or starts it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.cpu import CORES_VARIABLE

# Workers that connect while the process still loads.
_BACKLOG = 128


def connect(folder: Path, name: str, settings: Mapping[str, Any]) -> socket.socket:
    """A connection to the engine process of that name.

    Args:
        folder: the workers' common folder, which nobody else can enter.
        name: tells engine processes apart; workers that give the same settings give the same name.
        settings: what the process is to run, as it reads it from its stdin.

    Raises:
        OSError: it cannot be started.
    """
    path = folder / f"{name}.sock"
    with (folder / f"{name}.lock").open("w") as lock:
        # Two workers that start at the same time must not start two.
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            return _connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            path.unlink(missing_ok=True)
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(path))
                listener.listen(_BACKLOG)
                _start(listener, settings)
            return _connect(path)


def _connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(str(path))
    except BaseException:
        sock.close()
        raise
    return sock


def _start(listener: socket.socket, settings: Mapping[str, Any]) -> None:
    command = [sys.executable, "-m", "pipeline.engine_process.host", str(listener.fileno())]
    # It works for all workers, and is not bound to the share of one.
    environment = {name: text for name, text in os.environ.items() if name != CORES_VARIABLE}
    process = subprocess.Popen(  # noqa: S603 (this project's own module)
        command, stdin=subprocess.PIPE, pass_fds=[listener.fileno()], env=environment
    )
    if process.stdin is not None:
        process.stdin.write(json.dumps(settings).encode())
        process.stdin.close()
    # So that it does not stay in the process table if it ends before this process.
    threading.Thread(target=process.wait, name="engine-process", daemon=True).start()
