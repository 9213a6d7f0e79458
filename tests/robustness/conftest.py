"""`fuzz`, `chaos` and `soak` as processes, each in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.commands import run_here
from tests.ports import free_port
from tests.robustness.command_line import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def port() -> int:
    """A port of 127.0.0.1 that is free now, as are the next ones."""
    return free_port()


@pytest.fixture
def robustness_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command in an empty folder and in this process; `robustness` in one of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return partial(run_here, main)


@pytest.fixture
def robustness(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `python -m tests.robustness` to its end."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tests.robustness", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run
