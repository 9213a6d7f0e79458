"""The list of torchpipe's own programs: what it says of each of them is still true."""

from __future__ import annotations

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
VERDICTS = {"runs", "needs a GPU", "refused", "differs", "no torchpipe"}


def test_each_program_is_listed_once() -> None:
    paths = [program["path"] for program in PROGRAMS]
    assert len(set(paths)) == len(paths) > 100
    assert {program["verdict"] for program in PROGRAMS} == VERDICTS


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program["path"])
def test_a_program_has_what_its_verdict_wants(program: dict[str, Any]) -> None:
    verdict = program["verdict"]
    assert program.keys() <= {"path", "verdict", "why", "name", "habit"}
    assert ("name" in program) == (verdict == "refused")
    if verdict in ("runs", "differs"):
        assert "habit" in program
    if verdict == "differs":
        assert "why" in program
    if "habit" in program:
        module, _, function = program["habit"].partition("::")
        assert f"def {function}(" in (HERE / module).read_text("utf-8")


@pytest.mark.parametrize("name", sorted({p["name"] for p in PROGRAMS if "name" in p}))
def test_what_a_program_is_refused_for_is_refused_with_what_to_use_instead(name: str) -> None:
    rows = [torchpipe_names(kind).get(name) for kind in (BACKEND, KEY)]
    instead = [row.text for row in rows if row is not None and row.verdict is Verdict.INSTEAD]
    assert ABSENT.get(name) or any(instead)
