"""Command lines: spellings, and mistakes that are told in one line with the closest name."""

from __future__ import annotations

import pytest

from interfaces.command_line import Parser, build_parser
from interfaces.kinds import COUNT, OFF_SWITCH, SWITCH, TEXT, one_of
from interfaces.options import REQUIRED, Command, Option

_OPTIONS = (
    Option("file", TEXT, None, "the file", "FILE", is_positional=True, is_repeated=True),
    Option("batch_size", COUNT, 4, "rows of a batch", aliases=("rows",)),
    Option("set", TEXT, [], "a change, in % or `rows`", is_repeated=True),
    Option("fast", SWITCH, False, "hurry"),
    Option("no_lock", OFF_SWITCH, True, "without its lock", dest="lock"),
    Option("colour", one_of(("red", "green")), "red", "of all"),
    Option("out", TEXT, REQUIRED, "folder"),
    Option("items", COUNT, None, "how many", default_text="all"),
)
_COMMANDS = {
    "run_all": Command("run them", "file batch_size|items set fast no_lock colour"),
    "write": Command("write it", "out batch_size", {"batch_size": 8}, {"colour": "green"}),
}


def _parser(*, writes_underscores: bool = False) -> Parser:
    return build_parser(
        "program", "What it is.", _OPTIONS, _COMMANDS, writes_underscores=writes_underscores
    )


@pytest.mark.parametrize("writes_underscores", [True, False])
@pytest.mark.parametrize("command", ["run-all", "run_all"])
@pytest.mark.parametrize("name", ["--batch-size", "--batch_size", "--rows"])
def test_names_may_be_written_either_way(
    name: str, command: str, *, writes_underscores: bool
) -> None:
    options = _parser(writes_underscores=writes_underscores).parse([command, "a-b", name, "2"])
    assert (options.batch_size, options.file) == (2, ["a-b"])


def test_each_kind_of_option_reaches_its_attribute() -> None:
    words = ["--set=a_b=1", "--set", "c", "--fast", "--no-lock", "--colour", "green"]
    options = _parser().parse(["run-all", "x", "y", *words])
    assert (options.set, options.file) == (["a_b=1", "c"], ["x", "y"])
    assert (options.fast, options.lock, options.colour) == (True, False, "green")
    assert _parser().parse(["run-all", "x"]).set == []
    written = _parser().parse(["write", "--out", "o"])
    assert (written.batch_size, written.colour) == (8, "green")


def test_words_behind_two_dashes_stay_as_they_are() -> None:
    assert _parser().parse(["run-all", "--", "--a_b"]).file == ["--a_b"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "error: a command is missing: one of run_all, write (see python -m program --help)"),
        (["runall"], "unknown command 'runall'; did you mean 'run_all'?"),
        (["run-all", "x", "--fats"], "unknown option '--fats'; did you mean '--fast'?"),
        (["run-all", "x", "--batch-size", "0"], "--rows: must be at least 1, got 0"),
        (["run-all", "x", "--rows", "two"], "takes a whole number, got 'two'"),
        (["run-all", "x", "--colour", "gren"], "one of red, green, got 'gren'; did you mean"),
        (["run-all", "x", "--rows", "1", "--items", "1"], "not allowed with argument"),
        (["write"], "the following arguments are required: --out"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        _parser().parse(words)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


def test_help_tells_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _parser().parse(["run-all", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "rows of a batch (default: 4)" in text
    assert "how many (default: all)" in text
    assert "a change, in % or rows" in text
    assert "of all; one of red, green (default: red)" in text
