"""Finds the engine process of a server's workers, or starts it."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from engine.cpu.cores import CORES_VARIABLE
from interfaces.messages import to_json
from pipeline.engine_process.messages import EngineProcessSettings
from service.processes.exit_reasons import how_it_ended, oom_kills
from service.processes.shared_folder import open_owner, short_path
from service.processes.signals import held_back

logger = logging.getLogger(__name__)

# Workers that connect while the process still loads.
_BACKLOG = 128


def connect_or_start(folder: Path, settings: EngineProcessSettings) -> tuple[socket.socket, int]:
    """A connection to the engine process that runs what the settings say, and its process id.

    It may still load, or hang: nothing but its socket is known to work. Workers that give the same
    settings reach the same process.

    Args:
        folder: the server's `SharedFolder`.
        settings: what the process is to run.

    Raises:
        OSError: it cannot be started.
    """
    name = hashlib.sha256(to_json(settings).encode()).hexdigest()[:16]
    with (folder / f"{name}.lock").open("a+") as lock, short_path(folder, f"{name}.sock") as path:
        # Two workers that start at the same time must not start two.
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.seek(0)
        # The file is empty if the worker that started one ended before it could write this: that
        # process, to which no worker connects, ends by itself.
        if pid := lock.read():
            with suppress(FileNotFoundError, ConnectionRefusedError):
                return _connect(path), int(pid)
        lock.truncate(0)
        (folder / f"{name}.sock").unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(path)
            listener.listen(_BACKLOG)
            started = _start(listener, folder, settings)
        lock.write(str(started))
        return _connect(path), started


def _connect(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def _start(listener: socket.socket, folder: Path, settings: EngineProcessSettings) -> int:
    owner = open_owner(folder)
    fds = [listener.fileno(), owner]
    command = [sys.executable, "-m", "pipeline.engine_server", *map(str, fds)]
    # It works for all workers, and is not bound to the share of one.
    environment = {name: text for name, text in os.environ.items() if name != CORES_VARIABLE}
    oom_kills_before = oom_kills()
    try:
        # Not a pipe: writing to one waits for its reader, which may hang.
        with os.fdopen(os.memfd_create("settings"), "w+b") as given:
            given.write(to_json(settings).encode())
            given.seek(0)
            # A signal for all of the server must not end it before it can know better.
            with held_back():
                process = subprocess.Popen(  # noqa: S603 (this project's own module)
                    command, stdin=given, pass_fds=fds, env=environment
                )
    finally:
        os.close(owner)

    def reap() -> None:
        if exit_code := process.wait():
            how = how_it_ended(exit_code, oom_kills_before)
            logger.error("the engine process (pid %d) ended: %s", process.pid, how)

    # Without a thread for it, it stays in the process table until another one is started.
    with suppress(RuntimeError):
        threading.Thread(target=reap, name="engine-process", daemon=True).start()
    return process.pid
