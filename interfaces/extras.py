"""Extras of the distribution, for programs that are started without their packages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

MODULES = {
    "cli": ("click", "rich"),
    "server": (
        *("torch", "numpy", "cv2", "tomli", "onnx", "networkx", "onnxruntime"),
        *("click", "rich"),
    ),
    "bench": (
        *("locust", "gevent", "psutil", "pynvml", "matplotlib", "jinja2", "scipy"),
        *("skimage", "sklearn", "rich"),
    ),
    "tune": ("optuna", "tomli_w"),
    "scaling": ("simpy",),
    "metrics": ("prometheus_client", "pynvml"),
}
"""What is imported of the packages that an extra installs."""


def install_command(*extras: str) -> str:
    """What installs the distribution with these extras."""
    return f"pip install 'thriftpipe[{','.join(extras)}]'"


@contextmanager
def packages_of(*extras: str, is_program: bool = True) -> Iterator[None]:
    """Say what to install where a package of these extras is missing.

    Args:
        extras: those that are needed.
        is_program: whether to end the process then, with one line and exit code 2.

    Raises:
        ModuleNotFoundError: one of them is missing, and this is no program; or something else is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if not any(name in MODULES[extra] for extra in extras):
            raise
        message = f"the package {name!r} is not installed: {install_command(*extras)}"
        if not is_program:
            raise ModuleNotFoundError(message, name=name) from None
        sys.stderr.write(f"error: {message}\n")
        raise SystemExit(2) from None


def is_being_started() -> bool:
    """Whether the interpreter is importing the package of the program that `-m` names."""
    return sys.argv[:1] == ["-m"]
