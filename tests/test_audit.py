"""What `make audit` makes of pip-audit's reports."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Judge = Callable[[dict[str, Any]], tuple[list[str], int]]
SOUND = {"name": "idna", "version": "3.20", "vulns": []}
SKIPPED = {"name": "torch", "skip_reason": "Dependency not found on PyPI"}
FOUND = {
    "name": "flask",
    "version": "0.5",
    "vulns": [{"id": "PYSEC-2019-179", "fix_versions": ["1.0"], "aliases": [], "description": ""}],
}


@pytest.fixture(scope="module")
def judge() -> Judge:
    path = Path(__file__).parent.parent / ".ci" / "audit.py"
    function: Judge = runpy.run_path(str(path))["judge"]
    return function


def test_a_finding_fails(judge: Judge) -> None:
    lines, code = judge({"dependencies": [SOUND, FOUND, SKIPPED]})
    assert code == 1
    assert lines[0] == "audit: flask 0.5: PYSEC-2019-179, fixed in 1.0"
    assert lines[1].endswith("1 known vulnerabilities in 2 packages; not known there: torch")


def test_none_passes(judge: Judge) -> None:
    assert judge({"dependencies": [SOUND]}) == (
        ["audit: no known vulnerabilities in 1 packages"],
        0,
    )


def test_a_service_that_knows_nothing_passes_and_says_so(judge: Judge) -> None:
    lines, code = judge({"dependencies": [SKIPPED]})
    assert code == 0
    assert len(lines) == 1
    assert "skipped" in lines[0]
