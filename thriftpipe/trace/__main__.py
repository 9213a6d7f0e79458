"""`python -m thriftpipe.trace`."""

from argparse import Namespace
from collections.abc import Sequence

from interfaces.command_line import Parser
from interfaces.extras import packages_of

with packages_of("server", "bench"):
    from pipeline.commands.dispatch import run_command
    from service.processes.process import leave
    from thriftpipe.trace.options import COMMAND, OPTIONS


def trace(options: Namespace) -> int:
    """Run the command."""
    with packages_of("server", "bench"):
        from thriftpipe.trace.trace_command import run_trace

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
