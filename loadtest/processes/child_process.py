"""Child processes that never outlive the load test."""

from __future__ import annotations

import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TypeAlias

import psutil

from loadtest.errors import LoadTestError

_GUARD = Path(__file__).with_name("die_with_parent.py")
_KEPT_LINES = 50
_LAST_WORDS_S = 1.0
_EXIT_TIMEOUT_S = 30.0

Lines: TypeAlias = "queue.SimpleQueue[tuple[ChildProcess, str | None]]"


class ChildProcess:
    """A command in a session of its own, whose output lines arrive in a queue.

    It is killed when this process dies, whatever the reason, and with its whole process group when
    the context ends. Start it from the main thread: the kernel ties its life to the thread.

    Args:
        command: program and arguments.
        title: what error messages call it.
        lines: receives (this, line) for every line of stdout, and (this, None) at its end; None
            for a queue of its own, which `next_line` reads.
        merge_stderr: True where stderr counts as output too. Otherwise it is only kept for
            `last_line`.
    """

    def __init__(
        self,
        command: Sequence[str],
        title: str,
        lines: Lines | None = None,
        *,
        merge_stderr: bool = False,
    ) -> None:
        self.title = title
        self._lines: Lines = queue.SimpleQueue() if lines is None else lines
        self._kept: deque[str] = deque(maxlen=_KEPT_LINES)
        self._popen = subprocess.Popen(  # noqa: S603 (the command is the user's own)
            [sys.executable, "-I", "-S", str(_GUARD), str(os.getpid()), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merge_stderr else subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        self._descendants: list[psutil.Process] = []
        self._readers = [self._read(self._popen.stdout, keep=merge_stderr, publish=True)]
        if not merge_stderr:
            self._readers.append(self._read(self._popen.stderr, keep=True, publish=False))

    def _read(self, pipe: IO[str] | None, *, keep: bool, publish: bool) -> threading.Thread:
        assert pipe is not None  # noqa: S101 (all three were asked for)

        def forward() -> None:
            for line in pipe:
                if keep and line.strip():
                    self._kept.append(line.strip())
                if publish:
                    self._lines.put((self, line))
            if publish:
                self._lines.put((self, None))

        thread = threading.Thread(target=forward, name=f"read {self.title}", daemon=True)
        thread.start()
        return thread

    @property
    def pid(self) -> int:
        """Process id of the command, which is also its group's."""
        return self._popen.pid

    @property
    def last_line(self) -> str:
        """The last line that the command logged, or "no output"."""
        return self._kept[-1] if self._kept else "no output"

    def next_line(self, end_s: float = math.inf, overdue: str = "") -> str | None:
        """Wait for the next line of output; None at its end.

        Args:
            end_s: how long, on the clock of `time.monotonic`.
            overdue: what it has not done by then, such as "was not ready within 5 s".

        Raises:
            LoadTestError: none came by then.
        """
        try:
            timeout_s = None if math.isinf(end_s) else max(0.0, end_s - time.monotonic())
            return self._lines.get(timeout=timeout_s)[1]
        except queue.Empty:
            raise LoadTestError(
                f"{self.title} {overdue}; its last line: {self.last_line}"
            ) from None

    def ended(self, when: str = "") -> str:
        """That it has ended, in a line; waits for its exit code."""
        code = self.wait(_EXIT_TIMEOUT_S)
        for reader in self._readers:
            # Its last words may still be on their way; a child of its own may hold the pipe open.
            reader.join(_LAST_WORDS_S)
        return f"{self.title} ended with exit code {code}{when}; its last line: {self.last_line}"

    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._popen.poll()

    def write_line(self, line: str) -> None:
        """Send one line to its stdin; a command that is gone makes no noise here."""
        assert self._popen.stdin is not None  # noqa: S101 (it was asked for)
        try:
            self._popen.stdin.write(line + "\n")
            self._popen.stdin.flush()
        except BrokenPipeError:
            return  # the end of its output tells, with its last line

    def close_input(self) -> None:
        """Tell it that no more lines come."""
        assert self._popen.stdin is not None  # noqa: S101 (it was asked for)
        with suppress(BrokenPipeError):
            self._popen.stdin.close()

    def wait(self, timeout_s: float) -> int | None:
        """Wait for the exit; None where it still runs after `timeout_s`."""
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def terminate(self, timeout_s: float) -> int:
        """Send SIGTERM and wait for the exit.

        Returns:
            The exit code.

        Raises:
            LoadTestError: it runs on after `timeout_s`, or it leaves processes behind.
        """
        self._remember_descendants()
        if self._popen.poll() is None:
            self._popen.terminate()
        code = self.wait(timeout_s)
        if code is None:
            raise LoadTestError(f"{self.title} did not stop within {timeout_s:g} s after SIGTERM")
        left = [process.pid for process in self._descendants if _runs(process)]
        if left:
            raise LoadTestError(f"{self.title} left child processes behind: {left}")
        return code

    def _remember_descendants(self) -> None:
        try:
            self._descendants = psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return

    def close(self) -> None:
        """Kill what is left of the process group and collect it."""
        if self._popen.poll() is None:
            self._remember_descendants()
        # The group may be empty.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        for process in self._descendants:
            if _runs(process):
                process.kill()
        self._popen.wait()
        for reader in self._readers:
            reader.join(timeout=5)
        for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if pipe is not None:
                # Closing flushes, and the other end may be gone.
                with suppress(BrokenPipeError):
                    pipe.close()

    def __enter__(self) -> ChildProcess:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
