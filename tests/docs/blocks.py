"""The fenced blocks of the documentation, and the command lines in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
GUIDES = (
    "README.md",
    *(f"docs/{it.name}" for it in sorted((ROOT / "docs").glob("*.md")) if it.name != "index.md"),
)
"""Whatever they show is tried."""
PAGES = (*GUIDES, "pipeline/README.md", "results/README.md", "CONTRIBUTING.md")
"""Programs and TOML files of the others are fragments, which tests of their subjects complete."""
SHELL = ("sh", "console")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: relative to the repository.
        line: where it begins, from 1.
        language: as the fence says; "" where it does not.
        text: what stands in it.
    """

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_script(self) -> bool:
        """Whether its lines belong together, as those of a loop do."""
        return bool(re.search(r"^(for|if|while) |<<", self.text, re.MULTILINE))

    def command_lines(self) -> Iterator[str]:
        """The commands of a shell's block; of a console's those behind its prompt."""
        text = self.text.replace("\\\n", " ")
        for line in text.splitlines():
            if self.language == "console":
                if not line.startswith("$ "):
                    continue
                line = line.removeprefix("$ ")
            if shlex.split(line, comments=True):
                yield line


def blocks(page: str) -> list[Block]:
    """All blocks of code of a page, also those in lists; an indented one has no language."""
    tokens = MarkdownIt("commonmark").parse((ROOT / page).read_text("utf-8"))
    return [
        Block(page, token.map[0] + 1, token.info.split()[0] if token.info else "", token.content)
        for token in tokens
        if token.type in ("fence", "code_block") and token.map
    ]


@dataclass
class Command:
    """A program that a command line starts.

    Attributes:
        words: its name and its arguments.
        variables: what its environment has besides.
        stdin: the file that it reads; "" for none.
    """

    words: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    stdin: str = ""

    def __str__(self) -> str:
        return " ".join(self.words)


def commands(line: str) -> Iterator[Command]:
    """The programs that a command line starts, without comments."""
    if found := re.match(r'eval "\$\((.*)\)"', line):
        line = found[1]
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    command = Command()
    redirection = ""
    for word in [*lexer, ";"]:
        if redirection:
            if redirection == "<":
                command.stdin = word
            redirection = ""
        elif set(word) <= set("<>"):
            redirection = word
        elif set(word) <= set("|&;"):
            if command.words:
                yield command
            command = Command()
        elif not command.words and re.fullmatch(r"[A-Z_]+=.*", word):
            name, _, value = word.partition("=")
            command.variables[name] = value
        else:
            command.words.append(word)


def inline_commands(page: str) -> Iterator[str]:
    """The command lines of this project that stand in a sentence or a table of a page.

    Without what may be left out, `[--like this]`.
    """
    tokens = MarkdownIt("commonmark").enable("table").parse((ROOT / page).read_text("utf-8"))
    for token in tokens:
        for child in token.children or ():
            if child.type == "code_inline" and re.match(
                r"(thriftpipe|make|python -m) [a-z]", child.content
            ):
                yield re.sub(r"\[[^]]*\]", "", child.content)
