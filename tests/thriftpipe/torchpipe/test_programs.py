"""The list of torchpipe's own programs: what it says of each of them is still true."""

from __future__ import annotations

import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import pytest
import tomli

from pipeline.language.torchpipe_names import BACKEND, KEY, Verdict, torchpipe_names
from thriftpipe.torchpipe.absent import ABSENT

HERE = Path(__file__).parent
PROGRAMS: list[dict[str, Any]] = tomli.loads((HERE / "torchpipe_programs.toml").read_text("utf-8"))[
    "program"
]
VERDICTS = {"runs", "needs a GPU", "needs a module", "refused", "differs", "no torchpipe"}


def names_of(verdict: str) -> list[str]:
    """The names for which programs have that verdict."""
    return sorted({program["name"] for program in PROGRAMS if program["verdict"] == verdict})


def test_each_program_is_listed_once() -> None:
    paths = [program["path"] for program in PROGRAMS]
    assert len(set(paths)) == len(paths) > 100
    assert {program["verdict"] for program in PROGRAMS} == VERDICTS


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program["path"])
def test_a_program_has_what_its_verdict_wants(program: dict[str, Any]) -> None:
    verdict = program["verdict"]
    assert program.keys() <= {"path", "verdict", "why", "name", "habit"}
    assert ("name" in program) == (verdict in ("refused", "needs a module"))
    if verdict in ("runs", "differs"):
        assert "habit" in program
    if verdict in ("differs", "needs a module"):
        assert "why" in program
    if "habit" in program:
        module, _, function = program["habit"].partition("::")
        assert f"def {function}(" in (HERE / module).read_text("utf-8")


@pytest.mark.parametrize("name", names_of("refused"))
def test_what_a_program_is_refused_for_is_refused_with_what_to_use_instead(name: str) -> None:
    rows = [torchpipe_names(kind).get(name) for kind in (BACKEND, KEY)]
    instead = [row.text for row in rows if row is not None and row.verdict is Verdict.INSTEAD]
    assert ABSENT.get(name) or any(instead)


@pytest.mark.parametrize("module", names_of("needs a module"))
def test_a_module_that_a_program_needs_is_not_there_in_a_python_of_its_own(module: str) -> None:
    """Not even `omniback`, whose name this package lends only where it is imported."""
    if PathFinder.find_spec(module) is not None:
        pytest.skip(f"{module} is installed")
    command = [sys.executable, "-c", f"import {module}"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"No module named {module!r}" in ran.stderr
