"""The command line: `python -m pipeline COMMAND`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from pkgutil import resolve_name

from interfaces.command_line import BROKEN_PIPE, INTERRUPTED, drop_stdout
from interfaces.extras import install_command
from interfaces.garbage import none_while_importing
from pipeline.commands.console import complain
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
from pipeline.errors import PipelineConfigError

# Loaded when they run: torch takes seconds, which would be lost on a command line that is refused.
_COMMANDS = {
    SHOW: "pipeline.commands.show:show",
    CHECK: "pipeline.commands.check:check",
    RUN: "pipeline.commands.run:run",
    BENCH: "pipeline.commands.bench:run_bench",
    THROUGHPUT: "pipeline.commands.throughput:run_throughput",
    EXPORT: "pipeline.commands.export:export",
    OPERATORS: "pipeline.commands.operators:operators",
}
_OF_EXTRA_BENCH = (BENCH, THROUGHPUT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the command line; None for this process's own.

    Returns:
        The exit code: see each command's `--help`.
    """
    options = command_parser().parse(arguments)
    return run_command(_run, options)


def run_command(command: Callable[[Namespace], int], options: Namespace) -> int:
    """Run one command, with the backends that its options name.

    Returns:
        The command's exit code, or what a shell says of a program that was interrupted.
    """
    try:
        if getattr(options, "backends", None) is not None:
            from pipeline.backends.backend_file import load_backends

            load_backends(options.backends)
        return command(options)
    except PipelineConfigError as error:
        complain(f"error: {error}")
        return 2
    except BrokenPipeError:
        drop_stdout()
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(options: Namespace) -> int:
    name = options.command
    try:
        with none_while_importing():
            command = resolve_name(_COMMANDS[name])
    except ModuleNotFoundError as error:
        if name not in _OF_EXTRA_BENCH:
            raise
        complain(f"error: {name} needs the package {error.name!r}: {install_command('bench')}")
        return 2
    code: int = command(options)
    return code
