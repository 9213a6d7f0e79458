"""Where a measurement ran: machine, source and versions, without anything private of the host."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from engine.cpu import available_cores

# A path from the root, at the start of a word or behind "=" or a quotation mark.
_ABSOLUTE_PATH = re.compile(r"(?<![\w.~/:<])/(?:[\w.+@~-]+/)*([\w.+@~-]+)")


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory, kernel and Python of this machine."""
    return {
        "cpu_model": _cpu_model(),
        "cpu_cores": os.cpu_count(),
        "cpu_cores_usable": available_cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "python": platform.python_version(),
    }


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or "unknown"


def describe_source() -> dict[str, Any]:
    """Commit and dirty flag of the checkout that the code runs from; None outside of one.

    Measured folders do not count: they change nothing that is measured.
    """
    status = _git("status", "--porcelain", "--", ":(top)", ":(top,exclude)results")
    return {"commit": _git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 (fixed arguments)
            ["git", "-C", str(Path(__file__).parent), *arguments],  # noqa: S607 (of the user's PATH)
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def utc_now() -> str:
    """Date and time in UTC, to the second."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def without_paths(text: str) -> str:
    """The text with the bare name in place of every absolute path: result folders are shared."""
    return _ABSOLUTE_PATH.sub(r"\1", text)
