"""The commands that no other program has: models, completion, and what `try` takes."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pkgutil import resolve_name

from interfaces.command_line import build_parser
from interfaces.garbage import none_while_importing
from interfaces.kinds import SWITCH, one_of
from interfaces.options import REQUIRED, Command, Option
from thriftpipe.trial.arguments import TRY, TRY_COMMAND

MODELS, COMPLETION = "models", "completion"
SHELLS = ("bash", "zsh", "fish")

OPTIONS: Sequence[Option] = (
    Option("json", SWITCH, False, "print one JSON object"),
    Option("shell", one_of(SHELLS), REQUIRED, "your shell", "SHELL", is_positional=True),
)
COMMANDS = {
    TRY: TRY_COMMAND,
    MODELS: Command(
        "list packaged models, engines, and what is cached",
        "json",
        description="List the packaged models, the engines of this machine with the precisions "
        "that they run here, and what is cached: exported and quantised models, measurements. "
        "Nothing is ever downloaded.",
    ),
    COMPLETION: Command(
        "print what makes the shell complete words",
        "shell",
        description="Print a script after which the Tab key completes commands, options and their "
        "values. bash has to be 4.4 or newer.",
    ),
}
_RUN = {
    TRY: "thriftpipe.trial.trial_command:try_model",
    MODELS: "thriftpipe.door.models:list_models",
    COMPLETION: "thriftpipe.door.completion:print_script",
}


def main(arguments: Sequence[str], typed: str) -> int:
    """Run one command.

    Args:
        arguments: its name, and its options.
        typed: what the user has typed, for the record.

    Returns:
        The exit code.
    """
    parser = build_parser("thriftpipe", "", OPTIONS, COMMANDS)
    options: Namespace = parser.parse(arguments)
    options.typed = typed
    with none_while_importing():
        run = resolve_name(_RUN[options.command])
    code: int = run(options)
    return code
