"""Wrong command lines: what is told of each."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import click

from interfaces.names import closest_name_hint, unknown_name
from interfaces.options import dashed
from thriftpipe.door.parameters import DescribedArgument, DescribedOption, spelling
from thriftpipe.door.programs import LOADTEST, PIPELINE

# What options take such files, or a folder.
_OPTIONS_OF = {
    ".onnx": ("model", "workloads", "workload"),
    ".toml": ("config",),
    "folder": ("images", "img_dir"),
}


def told(error: click.UsageError) -> str:
    """A mistake in a line, as all programs of this project tell it."""
    param = getattr(error, "param", None)
    described = param.described if isinstance(param, DescribedOption | DescribedArgument) else None
    if isinstance(error, click.NoSuchOption):
        known = _option_names(error.ctx)
        if spelling_elsewhere := _of_another_program(error.option_name, error.ctx):
            return f"unknown option {error.option_name!r}; {spelling_elsewhere} has it"
        hint = closest_name_hint(error.option_name, known)
        if hint == ".":
            return unknown_name("option", error.option_name, known)
        return f"unknown option {error.option_name!r}{hint}"
    if isinstance(error, click.MissingParameter) and described is not None:
        return f"{spelling(described)} is missing: {described.text.replace('`', '')}"
    if isinstance(error, click.BadParameter) and described is not None:
        return f"{spelling(described)}: {error.message}"
    text = error.format_message().rstrip(".")
    return text[:1].lower() + text[1:]


def place_of(word: str, names: Collection[str]) -> str:
    """The option of a command that a file or folder could belong to, as a question; or "".

    Args:
        word: what was given without a name.
        names: those of the command's options.
    """
    kind = "folder" if Path(word).is_dir() else Path(word).suffix
    for name in _OPTIONS_OF.get(kind, ()):
        if name in names:
            return f"; did you mean --{dashed(name)} {word}?"
    return ""


def _option_names(ctx: click.Context | None) -> list[str]:
    if ctx is None:
        return []
    params = ctx.command.get_params(ctx)
    return [opt for param in params for opt in param.opts if opt.startswith("--")]


def _of_another_program(option: str, ctx: click.Context | None) -> str:
    """The command of the same name, of another program, that has the option; "" if none has."""
    name = ctx.info_name if ctx is not None else None
    for program in (LOADTEST, PIPELINE):
        for own, command in program.tables().commands.items():
            if own == name and command.takes(option.removeprefix("--").replace("-", "_")):
                return f"{program.spelling} {own}"
    return ""
