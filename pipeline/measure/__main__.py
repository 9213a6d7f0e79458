"""`python -m pipeline.measure`."""

import sys


def _start() -> int:
    try:
        from pipeline.measure.cli import main

        return main()
    except ModuleNotFoundError as error:
        print(  # noqa: T201 (a command line)
            f"pipeline.measure: error: the package {error.name!r} is not installed; "
            "install thriftpipe with its 'bench' extra",
            file=sys.stderr,
        )
        return 1


if __name__ == "__main__":
    sys.exit(_start())
