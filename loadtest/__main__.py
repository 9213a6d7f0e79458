"""`python -m loadtest`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from interfaces.extras import packages_of


def start(arguments: Sequence[str] | None = None, typed: str | None = None) -> int:
    """Run one command; what keeps it from starting becomes a line and an exit code.

    Args:
        arguments: the command line; None for this process's own.
        typed: what the user has typed, where that is another program's line.

    Returns:
        The exit code.
    """
    try:
        with packages_of("server", "bench"):
            from loadtest.command_line import main

            return main(arguments, typed)
    except KeyboardInterrupt:
        print("loadtest: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(start())
