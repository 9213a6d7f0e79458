"""A program's command, run to its end in this process: one of its own spends seconds on imports."""

from __future__ import annotations

import io
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout


class _Printed(io.StringIO):
    # As that of a pipe.
    encoding = "utf-8"


def run_here(
    main: Callable[[Sequence[str]], int], *arguments: object
) -> subprocess.CompletedProcess[str]:
    """What it printed, and its exit code."""
    words = [*map(str, arguments)]
    stdout, stderr = _Printed(), _Printed()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        with redirect_stdout(stdout), redirect_stderr(stderr):
            code = main(words)
    except SystemExit as usage:
        code = int(usage.code or 0)
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)
    return subprocess.CompletedProcess(words, code, stdout.getvalue(), stderr.getvalue())
