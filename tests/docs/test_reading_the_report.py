"""docs/reading-the-report.md: its commands, its example, and its names are those of the code."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.command_line import build_parser
from loadtest.report.marks import MARKS
from loadtest.report.verdict import Decision

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reading-the-report.md"
TEXT = PAGE.read_text("utf-8")
COMMANDS = re.findall(r"^python -m loadtest (.+)$", TEXT, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_are_understood(command: str) -> None:
    assert build_parser().parse(shlex.split(command)).command


def test_its_example_reads_the_published_summary() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["resnet50", "switch"],
        ["efficientnet_lite0", "switch"],
    ]


def test_it_explains_every_answer_and_every_mark() -> None:
    assert len(COMMANDS) == 3
    for name in (*(decision.title for decision in Decision), *(mark.name for mark in MARKS)):
        assert f"\n| {name} |" in TEXT, name
