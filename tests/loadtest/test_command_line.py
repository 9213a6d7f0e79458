"""One description of each option: parsing, spelling, bounds, and the table in results/README.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from interfaces.options import REQUIRED
from loadtest.command_line import COMMANDS, OPTIONS, build_parser

README = Path(__file__).parents[2] / "results" / "README.md"


def test_names_take_dashes_and_underscores_and_values_stay_as_they_are() -> None:
    words = [
        "compare",
        "--request-client=4",
        "--output_activation",
        "a-b",
        "--launch-prefix",
        "x-y",
    ]
    options = build_parser().parse(words)
    assert (options.request_client, options.output_activation) == (4, "a-b")
    assert options.launch_prefix == "x-y"


@pytest.mark.parametrize("name", ["null_request", "null-request"])
def test_names_of_commands_take_dashes_and_underscores(name: str) -> None:
    assert build_parser().parse([name]).command == "null_request"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "0"], "--port: must be 1 to 65535, got 0"),
        (["--duration-s", "0"], "--duration_s: must be above 0 and at most 86400, got 0.0"),
        (
            ["--duration-s", "1e9"],
            "--duration_s: must be above 0 and at most 86400, got 1000000000",
        ),
        (["--duration_s", "soon"], "--duration_s: takes a number of seconds, got 'soon'"),
        (["--repeats", "0"], "--repeats: must be at least 1, got 0"),
        (["--precision", "fp8"], "--precision: must be one of auto, fp32, "),
        (["--score_tolerance", "1"], "must be at least 0 and below 1, got 1"),
        (["--name", "a/b"], "--name: must be a plain folder name, got a/b"),
        (["--name", "a", "--output_dir", "b"], "not allowed with argument"),
    ],
)
def test_what_is_out_of_bounds_is_told_with_the_bounds(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse(["compare", *words])
    assert message in capsys.readouterr().err


def test_commands_have_defaults_of_their_own() -> None:
    parse = build_parser().parse
    assert (parse(["compare"]).duration_s, parse(["sweep"]).duration_s) == (None, 5.0)
    assert parse(["sweep"]).clients == [1, 2, 4, 10, 20, 40, 64, 128]
    session = parse(["gpu_session", "--out", "x"])
    assert (session.keep_servers, session.warmup_s) == (True, 0.5)


def test_every_option_belongs_to_a_command_and_the_other_way_round() -> None:
    used = {name for c in COMMANDS.values() for name in c.options.replace("|", " ").split()}
    assert used == {option.name for option in OPTIONS}


def table_of_options() -> str:
    """In Markdown: each option with its default by command."""
    lines = ["| option | what it is | default |", "| --- | --- | --- |"]
    for described in OPTIONS:
        defaults: dict[str, list[str]] = {}
        for name, command in COMMANDS.items():
            if command.takes(described.name):
                default = command.own(described).default
                shown = "required" if default is REQUIRED else f"`{default}`" if default else ""
                defaults.setdefault(shown, []).append(name)
        told = ", ".join(
            shown if len(defaults) == 1 else f"{shown or 'none'} ({', '.join(names)})"
            for shown, names in defaults.items()
        )
        spelling = described.metavar if described.is_positional else f"--{described.name}"
        lines.append(f"| `{spelling}` | {described.text} | {told} |")
    return "\n".join(lines) + "\n"


def test_the_readme_has_the_table_of_options() -> None:
    table = table_of_options()
    assert table in README.read_text(), f"results/README.md lacks this table:\n{table}"
