"""`python -m scaling`."""

from __future__ import annotations

import sys

from interfaces.extras import packages_of


def start() -> int:
    """Run one command, or say which packages are missing."""
    with packages_of("server", "bench", "scaling"):
        from scaling.command_line import main

        return main()


if __name__ == "__main__":
    sys.exit(start())
