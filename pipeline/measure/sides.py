"""The processes of the benchmark's sides, as the parent sees them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

OURS, ANCHOR = "thriftpipe", "torchpipe"
_SCRIPT = Path(__file__).with_name("side_process.py")
# torchpipe compiles its core at its first import, which takes minutes.
_START_LIMIT_S = 900.0
# Longer than any window that ends at all.
_WINDOW_LIMIT_S = 120.0


class MeasureError(Exception):
    """A measurement that cannot go on. The message is one line for the user."""


class SideProcess:
    """One side: its process is started here and ends with `close`, or with this process.

    Args:
        name: OURS or ANCHOR.
        command: program and arguments.

    Attributes:
        name: what it was given.
        versions: of its interpreter and packages.

    Raises:
        MeasureError: it does not start, and why.
    """

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        try:
            self._process = subprocess.Popen(  # noqa: S603 (the command is the user's own)
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                encoding="utf-8",
            )
        except OSError as error:
            self._log.close()
            raise MeasureError(
                f"{name}: cannot start {Path(command[0]).name!r}: {error.strerror}"
            ) from error
        try:
            self.versions: dict[str, str] = self._answer(_START_LIMIT_S)["versions"]
        except BaseException:
            self.close()
            raise

    def run(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What the side answers to a window's request.

        Raises:
            MeasureError: the window cannot be measured, or the process is gone.
        """
        assert self._process.stdin is not None  # noqa: S101 (it was asked for)
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise MeasureError(self._ended()) from None
        return self._answer(_WINDOW_LIMIT_S)

    def _answer(self, limit_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 (it was asked for)
        overdue = threading.Event()

        def give_up() -> None:
            overdue.set()
            self._process.kill()

        timer = threading.Timer(limit_s, give_up)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            late = f"{self.name}: no answer within {limit_s:g} s" if overdue.is_set() else None
            raise MeasureError(late or self._ended())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise MeasureError(f"{self.name}: {' '.join(answer['error'].split())}")
        return answer

    def _ended(self) -> str:
        """The line for a process that is gone."""
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
        return f"{self.name}: its process ended with exit code {code}: {last}"

    def close(self) -> None:
        """End the process; calling it again does nothing."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                # Closing flushes, and nobody may read any more.
                with suppress(BrokenPipeError):
                    stream.close()
        self._log.close()

    def __enter__(self) -> SideProcess:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def start_own_side() -> SideProcess:
    """This project's side, in this interpreter's environment."""
    return SideProcess(OURS, [sys.executable, "-m", "pipeline.measure.own_side"])


def start_anchor(python: str) -> SideProcess:
    """Torchpipe's side, in the environment of that interpreter.

    Raises:
        MeasureError: it cannot be imported there.
    """
    return SideProcess(ANCHOR, [python, "-I", str(_SCRIPT)])
