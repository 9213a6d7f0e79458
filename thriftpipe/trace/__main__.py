"""`python -m thriftpipe.trace`."""

from argparse import Namespace
from collections.abc import Sequence

from interfaces.command_line import Parser
from pipeline.commands.console import complain
from pipeline.commands.dispatch import run_command
from service.processes.process import leave
from thriftpipe.trace.options import COMMAND, OPTIONS


def trace(options: Namespace) -> int:
    """Run the command, which needs the packages of the extra 'bench'."""
    try:
        from thriftpipe.trace.command import run_trace
    except ModuleNotFoundError as error:
        complain(
            f"error: trace needs the package {error.name!r}; install thriftpipe with its 'bench' "
            "extra"
        )
        return 2
    return run_trace(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, and run the command.

    Args:
        arguments: the command line; None for this process's own.

    Returns:
        The exit code: see `--help`.
    """
    parser = Parser(prog="python -m thriftpipe.trace", description=COMMAND.description)
    for described in OPTIONS:
        parser.add(described)
    return run_command(trace, parser.parse(arguments))


if __name__ == "__main__":
    # A pager may take its time.
    leave(main(), patience_s=None)
