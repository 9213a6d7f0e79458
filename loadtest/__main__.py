"""`python -m loadtest`."""

import sys

from interfaces.extras import packages_of


def _start() -> int:
    try:
        with packages_of("server", "bench"):
            from loadtest.command_line import main

            return main()
    except KeyboardInterrupt:
        print("loadtest: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(_start())
