"""A server that the load test starts, waits for and stops."""

from __future__ import annotations

import queue
import socket
import time
from collections.abc import Sequence
from types import TracebackType

from loadtest.child_process import ChildProcess
from loadtest.errors import LoadTestError

_READY_MARK = "ready: "
_STOP_TIMEOUT_S = 30.0


def require_free_port(host: str, port: int) -> None:
    """Refuse a port that somebody listens on.

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


class ServerProcess:
    """A server that serves for the length of its context.

    Args:
        command: program and arguments.
        title: what error messages call it.
        ready_timeout_s: longest wait for its line with "ready: ".
    """

    def __init__(self, command: Sequence[str], title: str, ready_timeout_s: float) -> None:
        self._lines: queue.SimpleQueue[tuple[ChildProcess, str | None]] = queue.SimpleQueue()
        self._ready_timeout_s = ready_timeout_s
        self._process = ChildProcess(command, title, self._lines, merge_stderr=True)

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    def wait_ready(self) -> None:
        """Read its log until it says that it is ready.

        Raises:
            LoadTestError: it ended before, or the time is over.
        """
        deadline_s = time.monotonic() + self._ready_timeout_s
        while True:
            try:
                _, line = self._lines.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                raise LoadTestError(
                    f"{self._process.title} was not ready within {self._ready_timeout_s:g} s "
                    f"(--ready_timeout_s); its last line: {self._process.last_line}"
                ) from None
            if line is None:
                code = self._process.wait(_STOP_TIMEOUT_S)
                raise LoadTestError(
                    f"{self._process.title} ended with exit code {code} before it was ready; "
                    f"its last line: {self._process.last_line}"
                )
            if _READY_MARK in line:
                return

    def require_alive(self) -> None:
        """Raise LoadTestError if the server has ended."""
        code = self._process.exit_code()
        if code is not None:
            raise LoadTestError(
                f"{self._process.title} ended with exit code {code} during the measurement; "
                f"its last line: {self._process.last_line}"
            )

    def stop(self) -> None:
        """Stop it as an operator would, with SIGTERM.

        Raises:
            LoadTestError: it does not stop, exits with another code than 0, or leaves children.
        """
        code = self._process.terminate(_STOP_TIMEOUT_S)
        if code != 0:
            raise LoadTestError(
                f"{self._process.title} exited with code {code} after SIGTERM instead of 0; "
                f"its last line: {self._process.last_line}"
            )

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.close()
