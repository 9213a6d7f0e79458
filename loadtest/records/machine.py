"""Where a measurement ran: machine, source and versions, without anything private of the host."""

from __future__ import annotations

import os
import platform
import re
import socket
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil

from interfaces.versions import package_versions
from loadtest.records.probe import Gpus

COMMIT_VARIABLE = "THRIFTPIPE_COMMIT"
_CLIENT_PACKAGES = (
    "thriftpipe",
    "locust",
    "gevent",
    "thriftpy2",
    "psutil",
    "nvidia-ml-py",
    "numpy",
    "scipy",
    "matplotlib",
    "jinja2",
    "opencv-python-headless",
)
# A path from the root, at the start of a word or behind "=" or a quotation mark.
_ABSOLUTE_PATH = re.compile(r"(?<![\w.~/:<])/(?:[\w.+@~-]+/)*[\w.+@~-]+")


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory, kernel, GPUs and Python of this machine."""
    return {
        "cpu_model": _cpu_model(),
        "cpu_cores": os.cpu_count(),
        "cpu_cores_usable": usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "kernel": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "gpus": Gpus().names or "n/a",
    }


def machine_id() -> str:
    """The same in all processes of this machine until it is started again; for no result file."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def own_version() -> str:
    """Version of this program."""
    return package_versions(("thriftpipe",)).get("thriftpipe", "unknown")


def has_gpu() -> bool:
    """Whether the driver shows an NVIDIA GPU, for which the service then chooses its engine."""
    return bool(Gpus().names)


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or "unknown"


def describe_source() -> dict[str, Any]:
    """Commit and dirty flag of the checkout that the code runs from; None outside of one.

    Measured folders do not count: they change nothing that is measured. Where only a copy of a
    checkout travels, THRIFTPIPE_COMMIT says of which commit.
    """
    commit = _git("rev-parse", "HEAD") or os.environ.get(COMMIT_VARIABLE)
    status = _git("status", "--porcelain", "--", ":(top)", ":(top,exclude)results")
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def _git(*arguments: str) -> str | None:
    folder = Path(__file__).parent
    try:
        done = subprocess.run(  # noqa: S603 (fixed arguments)
            ["git", "-C", str(folder), *arguments],  # noqa: S607 (the git of the user's PATH)
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def client_versions() -> dict[str, str]:
    """Versions of the packages that the load test itself uses."""
    return package_versions(_CLIENT_PACKAGES)


def utc_now() -> str:
    """Date and time in UTC, to the second."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def without_paths(value: Any) -> Any:
    """A JSON value in which every absolute path is relative to the current folder or a bare name.

    Result folders are shared; where files lie on one machine stays private.
    """
    if isinstance(value, dict):
        return {key: without_paths(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(entry) for entry in value]
    if isinstance(value, str):
        return _ABSOLUTE_PATH.sub(lambda match: _shorten(match.group()), value)
    return value


def _shorten(path: str) -> str:
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return Path(path).name
