"""The programs that the documentation runs: whether one takes a command line, and running it."""

from __future__ import annotations

import re
import subprocess
from argparse import Namespace
from collections.abc import Sequence
from pkgutil import resolve_name
from typing import Any

import pytest

from interfaces.command_line import Parser
from tests.commands import run_here
from tests.docs.blocks import ROOT, commands

_MAINS = {
    "service": "service.cli:main",
    "service.client": "service.client.client_command:main",
    "loadtest": "loadtest.command_line:main",
    "scaling": "scaling.command_line:main",
    "pipeline": "pipeline.commands.dispatch:main",
    "thriftpipe": "thriftpipe.door.group:run",
    "thriftpipe.trace": "thriftpipe.trace.__main__:main",
    "tests.robustness": "tests.robustness.command_line:main",
}
_PYTHON = re.compile(r"(\.venv/bin/)?python3?(\.\d+)?")


class TakenError(BaseException):
    """A program takes its command line."""


def program(words: Sequence[str]) -> tuple[str, list[str]] | None:
    """The module of this project that a command runs, and its arguments; None for another one."""
    if words[0] == "thriftpipe":
        return "thriftpipe", list(words[1:])
    if _PYTHON.fullmatch(words[0]) and words[1] == "-m" and words[2] in _MAINS:
        return words[2], list(words[3:])
    return None


def run(module: str, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a program to its end in this process."""
    return run_here(resolve_name(_MAINS[module]), *arguments)


def why_not_taken(module: str, arguments: Sequence[str]) -> str:
    """What a program says of a command line that it refuses; "" where it would begin."""

    def parse(self: Parser, words: Sequence[str] | None = None) -> Namespace:
        original(self, words)
        raise TakenError

    original: Any = Parser.parse
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parser, "parse", parse)
        try:
            ended = run(module, arguments)
        except TakenError:
            return ""
    return "" if ended.returncode == 0 else ended.stderr


def why_not_made(words: Sequence[str]) -> str:
    """What is wrong with the target of a `make` command, or with what it runs; "" if nothing."""
    shown = subprocess.run(
        ["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if shown.returncode != 0:
        return shown.stderr
    for line in shown.stdout.replace("\\\n", " ").splitlines():
        if " -m " not in line:
            continue
        for run_by_make in commands(line):
            found = program(run_by_make.words)
            if found is not None and (reason := why_not_taken(*found)):
                return f"{line}: {reason}"
    return ""
