"""The command line: `python -m pipeline COMMAND`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence

from pipeline.backends.backend_file import load_backends
from pipeline.commands.check import check
from pipeline.commands.console import complain, drop_stdout
from pipeline.commands.export import export
from pipeline.commands.operators import operators
from pipeline.commands.pipeline_arguments import (
    BENCH,
    CHECK,
    EXPORT,
    OPERATORS,
    RUN,
    SHOW,
    THROUGHPUT,
    command_parser,
)
from pipeline.commands.run import run
from pipeline.commands.show import show
from pipeline.errors import PipelineConfigError

# What a shell says of a program that ended at a signal: 128 and the signal's number.
_INTERRUPTED = 130
_BROKEN_PIPE = 141


def _measure(options: Namespace) -> int:
    """The commands that need the packages of the extra 'bench'."""
    try:
        from pipeline.commands.bench import run_bench
        from pipeline.commands.throughput import run_throughput
    except ModuleNotFoundError as error:
        complain(
            f"error: {options.command} needs the package {error.name!r}; install thriftpipe with "
            "its 'bench' extra"
        )
        return 2
    return {BENCH: run_bench, THROUGHPUT: run_throughput}[options.command](options)


_COMMANDS = {
    SHOW: show,
    CHECK: check,
    RUN: run,
    BENCH: _measure,
    THROUGHPUT: _measure,
    EXPORT: export,
    OPERATORS: operators,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the command line; None for this process's own.

    Returns:
        The exit code: see each command's `--help`.
    """
    options = command_parser().parse(arguments)
    return run_command(_COMMANDS[options.command], options)


def run_command(command: Callable[[Namespace], int], options: Namespace) -> int:
    """Run one command, with the backends that its options name.

    Returns:
        The command's exit code, or what a shell says of a program that was interrupted.
    """
    try:
        if getattr(options, "backends", None) is not None:
            load_backends(options.backends)
        return command(options)
    except PipelineConfigError as error:
        complain(f"error: {error}")
        return 2
    except BrokenPipeError:
        drop_stdout()
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        return _INTERRUPTED
