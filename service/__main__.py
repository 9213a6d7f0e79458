"""`python -m service`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from interfaces.extras import packages_of


def start(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the server until it is stopped, and end the process.

    Args:
        arguments: the command line; None for this process's own.
    """
    with packages_of("server"):
        from service.cli import main
        from service.processes.process import leave

        try:
            code = main(arguments)
        except SystemExit as stopped:
            # A signal during the start; a model that does not come to an end may still run.
            code = stopped.code if isinstance(stopped.code, int) else 1
    leave(code)


if __name__ == "__main__":
    start()
