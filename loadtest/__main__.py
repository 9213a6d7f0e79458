"""`python -m loadtest`."""

import sys


def _start() -> int:
    try:
        from loadtest.command_line import main

        return main()
    except ModuleNotFoundError as error:
        print(
            f"loadtest: error: the package {error.name!r} is not installed; "
            "install thriftpipe with its 'bench' extra",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("loadtest: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(_start())
