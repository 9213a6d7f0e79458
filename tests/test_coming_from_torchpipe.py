"""docs/coming-from-torchpipe.md: its tables are the code's, and its examples run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from interfaces.markdown import prose_table
from pipeline.commands.operators import torchpipe_tables
from pipeline.commands.pipeline_arguments import COMMANDS
from pipeline.config import read_config
from pipeline.language.document import parse_toml
from thriftpipe.torchpipe.absent import ABSENT

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "coming-from-torchpipe.md").read_text("utf-8")


def absent_table() -> str:
    """The names that the Python package has only to say what to use instead."""
    names: dict[str, list[str]] = {}
    for name, reason in ABSENT.items():
        names.setdefault(reason, []).append(f"`{name}`")
    rows = [(", ".join(those), reason) for reason, those in names.items()]
    return prose_table(["name", "why, and what instead"], rows)


def test_the_table_of_names_is_the_codes() -> None:
    assert torchpipe_tables() in PAGE, "paste: python -m pipeline operators --torchpipe"


def test_the_table_of_absent_python_names_is_the_packages() -> None:
    assert absent_table() in PAGE, absent_table()


def test_the_toml_files_can_be_read() -> None:
    files = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert files
    for text in files:
        config, mistakes = read_config(parse_toml(text))
        assert not mistakes
        assert list(config.nodes) == ["decode", "preprocess", "resnet50"]


def test_the_commands_exist() -> None:
    commands = re.findall(r"^python -m pipeline (\w+)", PAGE, re.MULTILINE)
    assert set(commands) <= set(COMMANDS)
    assert len(commands) >= 5


@pytest.mark.parametrize("page", ["docs/coming-from-torchpipe.md", "pipeline/README.md"])
def test_the_first_example_reads_items_of_every_outcome(page: str) -> None:
    """With a result, with an error, and with neither, as a filter leaves it."""
    (read, *_) = re.findall(r"^ +(print\(item.*)$", (ROOT / page).read_text("utf-8"), re.MULTILINE)
    for item in ({"result": np.zeros(3)}, {"error": ValueError("bad")}, {}):
        exec(read, {"item": {"data": 1, **item}})  # noqa: S102 (the page's own line)


def test_it_is_linked() -> None:
    for page in ("README.md", "pipeline/README.md"):
        assert "docs/coming-from-torchpipe.md" in (ROOT / page).read_text("utf-8")
