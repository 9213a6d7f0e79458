"""A server that is started, waited for and stopped."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Sequence
from typing import TypeVar

from loadtest.errors import LoadTestError, UsageError
from loadtest.processes.child_process import ChildProcess

# The service's exit code for what its command line asks for and cannot be.
_REFUSED_SETTINGS = 2
_READY_MARK = "ready: "
_STOP_TIMEOUT_S = 60.0
_Self = TypeVar("_Self", bound="ServerProcess")


def require_free_port(host: str, port: int) -> None:
    """Refuse a port that is listened on.

    Raises:
        LoadTestError: it is in use, or no address of this machine.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Connections of an earlier server in TIME_WAIT do not count; a listener still does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen()
        except OSError as error:
            raise LoadTestError(
                f"port {port} of {host} cannot be used ({error.strerror}); "
                "stop the server that has it, or choose another with --port"
            ) from error


def service_command(arguments: Sequence[str], host: str, port: int) -> list[str]:
    """The command of the service, listening there."""
    address = ["--host", host, "--port", str(port)]
    return [sys.executable, "-m", "service", *arguments, *address]


class ServerProcess:
    """A server that serves for the length of its context; its log is read all the time.

    Args:
        command: program and arguments.
        title: what error messages call it.
        ready_timeout_s: longest wait for its line with "ready: ".
    """

    def __init__(self, command: Sequence[str], title: str, ready_timeout_s: float) -> None:
        self._ready_timeout_s = ready_timeout_s
        self._process = ChildProcess(command, title, merge_stderr=True)
        self._is_ready = False
        self._ready_or_ended = threading.Event()
        self._reader = threading.Thread(target=self._read_log, name=f"log {title}", daemon=True)
        self._reader.start()

    def _read_log(self) -> None:
        while (line := self._process.next_line()) is not None:
            self.on_line(line)
            if _READY_MARK in line:
                self._is_ready = True
                self._ready_or_ended.set()
        self._ready_or_ended.set()

    def on_line(self, line: str) -> None:
        """Called with every line of the log, by the thread that reads it."""

    @property
    def pid(self) -> int:
        """Process id of the server, of the supervisor where it has workers."""
        return self._process.pid

    def wait_ready(self) -> None:
        """Wait until its log says that it is ready.

        Raises:
            UsageError: it was given settings that cannot work, as its exit code says.
            LoadTestError: it ended for another reason before, or the time is over.
        """
        if not self._ready_or_ended.wait(self._ready_timeout_s):
            raise LoadTestError(
                f"{self._process.title} was not ready within {self._ready_timeout_s:g} s "
                f"(--ready_timeout_s); its last line: {self._process.last_line}"
            )
        if not self._is_ready:
            line = self._process.ended(" before it was ready")
            is_refused = self.exit_code() == _REFUSED_SETTINGS
            raise UsageError(line) if is_refused else LoadTestError(line)

    def exit_code(self) -> int | None:
        """The exit code, None while it runs."""
        return self._process.exit_code()

    def require_alive(self) -> None:
        """Raise LoadTestError if the server has ended."""
        if self.exit_code() is not None:
            raise LoadTestError(self._process.ended(" during the measurement"))

    def terminate(self) -> int:
        """Send SIGTERM, as an operator would, and wait; the exit code.

        Raises:
            LoadTestError: it does not stop, or leaves children.
        """
        code = self._process.terminate(_STOP_TIMEOUT_S)
        self._reader.join(_STOP_TIMEOUT_S)
        return code

    def stop(self) -> None:
        """Stop it, which must work.

        Raises:
            LoadTestError: it does not stop, exits with another code than 0, or leaves children.
        """
        code = self.terminate()
        if code != 0:
            raise LoadTestError(
                f"{self._process.title} exited with code {code} after SIGTERM instead of 0; "
                f"its last line: {self._process.last_line}"
            )

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._process.close()
