"""What the documentation shows: its commands, programs and files."""

from __future__ import annotations

import re
import subprocess
from contextlib import ExitStack, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import tomli

from pipeline.config import read_config
from pipeline.language.document import parse_toml
from service.options.given import gather
from service.options.server_arguments import parse_arguments
from tests.docs.blocks import (
    GUIDES,
    PAGES,
    ROOT,
    SHELL,
    Block,
    Command,
    blocks,
    commands,
    inline_commands,
)
from tests.docs.conftest import Workspace
from tests.docs.programs import program, run, why_not_made, why_not_taken

_DECLARED = tomli.loads(Path(__file__).with_name("exceptions.toml").read_text("utf-8"))
FOREIGN: dict[str, str] = _DECLARED["foreign"]
RUN: dict[str, str] = _DECLARED["run"]
ENDS: dict[str, int] = _DECLARED["ends"]
ELSEWHERE: dict[str, str] = _DECLARED["elsewhere"]
TRANSLATED = "docs/quick-start.zh.md"
ALL = [block for page in PAGES for block in blocks(page)]
TRIED = [block for block in ALL if block.text.splitlines()[0] not in ELSEWHERE]
SHELL_BLOCKS = [it for it in TRIED if it.language in SHELL and it.page != TRANSLATED]
PYTHON_BLOCKS = [it for it in TRIED if it.language == "python" and it.page in GUIDES]
TOML_BLOCKS = [it for it in TRIED if it.language == "toml" and it.page in GUIDES]


def declared(command: Command, starts: dict[str, Any]) -> str | None:
    """The longest of the declared beginnings that a command line has."""
    fitting = [start for start in starts if f"{command} ".startswith(f"{start} ")]
    return max(fitting, key=len, default=None)


def expanded(word: str) -> list[str]:
    """The files that a word stands for, as a shell finds them."""
    if "*" not in word or word.startswith("-"):
        return [word]
    return [str(path) for path in sorted(Path().glob(word))] or [word]


def check(command: Command, workspace: Workspace) -> None:
    """Run a command in its small form, or see that it would be taken."""
    if declared(command, FOREIGN) is not None:
        return
    if command.words[0] == "make":
        assert not why_not_made(command.words), command
        return
    found = program([part for word in command.words for part in expanded(word)])
    assert found is not None, f"{command}: not this project's; declare it in exceptions.toml"
    module, arguments = found
    start = declared(command, RUN)
    # There is one server, which is here.
    if start is None or "--host" in arguments:
        assert not why_not_taken(module, arguments), command
        return
    arguments = [*arguments, *RUN[start].split()]
    if module == "service.client" or arguments[0] == "client":
        arguments += ["--port", str(workspace.port)]
    ended = run(module, arguments)
    ending = declared(command, ENDS)
    expected = 0 if ending is None else ENDS[ending]
    assert ended.returncode == expected, f"{command}: {ended.stdout}{ended.stderr}"


@pytest.mark.parametrize("block", SHELL_BLOCKS, ids=str)
def test_a_command_runs(
    block: Block, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace.folder)
    if block.is_script:
        subprocess.run(["sh", "-ec", block.text], check=True, capture_output=True)
        return
    for line in block.command_lines():
        for command in commands(line):
            with ExitStack() as stack, monkeypatch.context() as patch:
                for name, value in command.variables.items():
                    patch.setenv(name, value)
                if command.stdin:
                    patch.setattr("sys.stdin", stack.enter_context(Path(command.stdin).open()))
                check(command, workspace)


@pytest.mark.parametrize("page", PAGES)
def test_a_command_in_a_sentence_would_be_taken(
    page: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may lack what it is to be used with."""
    monkeypatch.chdir(workspace.folder)
    for line in inline_commands(page):
        for command in commands(line):
            if command.words[0] == "make":
                assert not why_not_made(command.words), line
            elif declared(command, FOREIGN) is None:
                found = program(command.words)
                assert found is not None, line
                reason = why_not_taken(*found)
                incomplete = re.search("(is missing|are required|SHELL|COMMAND)", reason)
                assert not reason or incomplete, f"{line}: {reason}"


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=str)
def test_a_program_runs(
    block: Block, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace.folder)
    code = compile(workspace.adapted(block.text), str(block), "exec")
    with redirect_stdout(StringIO()):
        exec(code, {"__name__": "__main__"})  # noqa: S102 (the documentation is ours)


@pytest.mark.parametrize("block", TOML_BLOCKS, ids=str)
def test_a_file_can_be_read(block: Block, tmp_path: Path) -> None:
    document = parse_toml(block.text)
    if "server" in document:
        file = tmp_path / "server.toml"
        file.write_text(block.text)
        parse_arguments(gather(["--config", str(file)], {}).words)
        return
    _, mistakes = read_config(document)
    assert not mistakes


def test_every_block_says_what_it_is() -> None:
    assert not [str(block) for block in ALL if not block.language]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) < 200


def test_what_is_declared_is_there() -> None:
    """An exception for what no page has any more goes."""
    lines = [line for block in SHELL_BLOCKS for line in block.command_lines()]
    lines += [line for page in PAGES for line in inline_commands(page)]
    there = [command for line in lines for command in commands(line)]
    for start in (*FOREIGN, *RUN, *ENDS):
        assert any(declared(command, {start: ""}) for command in there), start
    assert ELSEWHERE.keys() <= {block.text.splitlines()[0] for block in ALL}


def test_both_quick_starts_have_the_same_commands() -> None:
    english, chinese = (
        [block.text for block in ALL if block.page == page and block.language in SHELL]
        for page in ("docs/quick-start.md", TRANSLATED)
    )
    assert english == chinese
