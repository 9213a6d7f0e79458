"""The command line `thriftpipe`: mistakes, help, completion, and what reaches the programs."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path

import click
import pytest

from interfaces.engines import PROVIDERS
from loadtest.command_line import build_parser
from pipeline.commands.pipeline_arguments import command_parser
from service.options.server_arguments import parse_arguments
from tests.commands import run_here
from tests.ports import free_port
from tests.serving import OPTIONS, ServerProcess
from thriftpipe.__main__ import main
from thriftpipe.door.commands import COMMANDS
from thriftpipe.door.group import ProgramCommand, door, run
from thriftpipe.door.parameters import words
from thriftpipe.door.programs import CLIENT
from thriftpipe.door.reference import FILE, reference

ROOT = Path(__file__).parents[3]
_SHELLS = ("bash", "zsh", "fish")


def _parsed(line: Sequence[str]) -> tuple[ProgramCommand, dict[str, object]]:
    """The command of a line and its options, as click reads them; nothing is run."""
    group: click.Command = door()
    given = [*line]
    while isinstance(group, click.Group):
        context = group.make_context("thriftpipe", [*given], resilient_parsing=True)
        _, command, given = group.resolve_command(context, given)
        assert command is not None
        group = command
    assert isinstance(group, ProgramCommand)
    return group, group.make_context(str(group.name), given).params


def _inner(line: Sequence[str]) -> list[str]:
    """The command line that the program reads."""
    command, given = _parsed(line)
    return [*words(command.entries, given)]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (["serv"], "unknown command 'serv'; did you mean 'serve'?"),
        (["images"], "thriftpipe has no command 'images'; use python -m loadtest images"),
        (["gpu-session"], "use python -m loadtest gpu_session"),
        (["xyzzy"], "unknown command 'xyzzy'. Known: bench, "),
        (["run", "--request-client", "1"], "python -m loadtest run has it"),
        (["client", "clasify"], "unknown command 'clasify'; did you mean 'classify'?"),
        (["serve", "--prot", "1"], "unknown option '--prot'; did you mean '--port'?"),
        (["serve", "--port", "x"], "--port: takes a port, got 'x' (see thriftpipe serve --help)"),
        (["serve", "--port", "70000"], "--port: must be 0 to 65535, got 70000"),
        (["serve", "--port"], "option '--port' requires an argument"),
        (["serve", "--mean", "1,2"], "--mean: takes one number or three"),
        (["bench", "--precision", "fp8"], "--precision: must be one of auto, fp32"),
        (["bench", "--name", "a", "--output_dir", "b"], "--name and --output-dir exclude each"),
        (["show"], "FILE.toml is missing: the pipeline"),
        (["show", "a.toml", "b.toml"], "error: unexpected argument 'b.toml' (see "),
        (["serve", "my.onnx"], "unexpected argument 'my.onnx'; did you mean --model my.onnx?"),
        (["bench", "my.onnx"], "did you mean --workloads my.onnx?"),
        (["tune", "my.toml"], "did you mean --config my.toml?"),
        (["try", "my.onnx", "/"], "unexpected argument '/'; did you mean --images /?"),
        (["models", "--json=1"], "option '--json' does not take a value"),
        (["completion", "tcsh"], "SHELL: must be one of bash, zsh, fish, got 'tcsh'"),
        (["--verison"], "unknown option '--verison'; did you mean '--version'?"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(line: list[str], told: str) -> None:
    done = run_here(run, *line)
    assert (done.returncode, done.stdout) == (2, "")
    (message,) = done.stderr.splitlines()
    assert message.startswith("error: ")
    assert told in message


def test_what_only_a_program_can_refuse_has_exit_code_2_too(tmp_path: Path) -> None:
    done = run_here(run, "check", tmp_path / "none.toml")
    assert done.returncode == 2
    done = run_here(run, "client", "ping", "--tls-cert", "none.pem")
    assert done.returncode == 2
    for line in (
        ["bench", "--workloads", "none.onnx"],
        ["compare", "--variants", "baselin"],
        ["compare", "--launch-prefix", "'"],
        ["compare", "--engine", "onxruntime"],
        ["sweep", "--img-dir", tmp_path / "none"],
        ["sweep", "--workload", "a,b"],
        ["tune", "--config", "none.toml"],
        ["report", tmp_path],
        ["report", "diff", tmp_path],
        ["report", "diff", tmp_path, tmp_path],
    ):
        done = run_here(run, *line)
        assert (done.returncode, done.stdout) == (2, ""), line
        assert len(done.stderr.splitlines()) == 1
    assert run_here(run, "client", "ping", "--port", free_port()).returncode == 3


@pytest.mark.parametrize("line", [[], ["client"]])
def test_without_a_command_the_help_is_told_as_a_mistake(line: list[str]) -> None:
    done = run_here(run, *line)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: thriftpipe" in done.stderr


@pytest.mark.parametrize("line", [["bench"], ["client", "classify"], ["serve"], ["-h"]])
def test_help_is_plain_text_in_a_pipe(line: list[str]) -> None:
    done = run_here(run, *line, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: thriftpipe")
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 110


def test_help_is_as_wide_as_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in (60, 80, 100):
        monkeypatch.setenv("COLUMNS", str(columns))
        for name in COMMANDS:
            done = run_here(run, name, "--help")
            # Examples are to be copied and stay whole.
            long = [it for it in done.stdout.splitlines() if len(it) > columns]
            assert all(line.strip().startswith(("thriftpipe", "eval")) for line in long), name


def test_the_version_is_told_with_those_of_python_and_the_engines() -> None:
    done = run_here(run, "--version")
    assert done.stdout.startswith("thriftpipe 0.1.0 (Python 3.")
    assert "onnxruntime 1." in done.stdout


def test_every_example_is_a_command_line_that_works() -> None:
    lines = [example.line for command in COMMANDS.values() for example in command.examples]
    for name in (*COMMANDS, *(f"client {own}" for own in CLIENT.tables().commands)):
        assert any(f"thriftpipe {name}" in line for line in lines), f"{name} has no example"
    for line in lines:
        command = line.removeprefix('eval "$(').removesuffix(')"')
        _, *given = shlex.split(re.split(" [|<] ", command)[0])
        _parsed(given)


@pytest.mark.parametrize("spelled", ["--{}-{}", "--{}_{}"])
def test_options_reach_the_programs_as_they_are(spelled: str) -> None:
    client, top = spelled.format("request", "client"), spelled.format("log", "level")
    given = [
        client,
        "3",
        "--workloads=a_b.onnx",
        "--launch-prefix",
        "taskset -c 0",
        "--keep-servers",
    ]
    wanted = build_parser().parse(["compare", *given])
    assert build_parser().parse(["compare", *_inner(["bench", *given])]) == wanted
    given = ["--set", "a_b=1", "--set", "n.c=-2", "--mean=-1,2,3", "--std", "1", "--no-lock", top]
    wanted_settings: Namespace = parse_arguments([*given, "debug"])
    assert parse_arguments(_inner(["serve", *given, "debug"])) == wanted_settings
    # The service itself finds out which of several counts.
    given = ["--config", "server.toml", "--no-lock=false", "--config", "graph.toml", "--port", "1"]
    inner = _inner(["serve", *given, "--port", "2"])
    assert sorted(inner) == sorted(
        ["--config=server.toml", "--config=graph.toml", "--no-lock=false", "--port=1", "--port=2"]
    )
    assert inner.index("--config=server.toml") < inner.index("--config=graph.toml")
    wanted = command_parser().parse(["run", "a.toml", "x.jpg", "y_z.jpg", "--profile"])
    given = ["a.toml", "x.jpg", "--profile", "y_z.jpg"]
    assert command_parser().parse(["run", *_inner(["run", *given])]) == wanted
    assert _inner(["run", "a.toml", "--", "--x"]) == ["--", "a.toml", "--x"]


_LIGHT = """
import os, sys
from thriftpipe.door.commands import COMMANDS
from thriftpipe.door.group import COMPLETION_VARIABLE, door, run

assert run(["--help"]) == 0
assert not {"numpy", "thriftpy2", "loadtest", "service"} & sys.modules.keys(), "the group is lazy"
os.environ[COMPLETION_VARIABLE] = "bash_complete"
for name in (*COMMANDS, "client classify"):
    line = f"thriftpipe {name} --"
    os.environ["COMP_WORDS"], os.environ["COMP_CWORD"] = line, str(line.count(" "))
    try:
        run([])
    except SystemExit:
        pass
assert not {"torch", "onnxruntime", "cv2", "matplotlib"} & sys.modules.keys()
"""


def test_help_and_completion_load_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LIGHT], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    for expected in ("plain,--workloads", "plain,--top-k", "plain,--set", "plain,--skip-compare"):
        assert expected in done.stdout


_ASK = {
    "bash": """
eval "$(thriftpipe completion bash)"
ask() {
    COMP_WORDS=($1); COMP_CWORD=$2; COMPREPLY=()
    _thriftpipe_completion thriftpipe
    echo "${COMPREPLY[@]}"
}
ask "thriftpipe ser" 1; ask "thriftpipe bench --precision i" 3; ask "thriftpipe models --js" 2
""",
    "zsh": """
autoload -U compinit; compinit -u
eval "$(thriftpipe completion zsh)"
compadd() { print -- "${(P@)@[-1]}" }
_describe() { print -- "${(P@)3}" }
ask() { words=(${(z)1}); CURRENT=$2; _thriftpipe_completion }
ask "thriftpipe ser" 2; ask "thriftpipe bench --precision i" 4; ask "thriftpipe models --js" 3
""",
    "fish": """
thriftpipe completion fish | source
for line in "thriftpipe ser" "thriftpipe bench --precision i" "thriftpipe models --js"
    complete --do-complete $line
end
""",
}


@pytest.mark.parametrize("shell", _SHELLS)
def test_shells_complete_commands_options_and_values(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    program = tmp_path / "thriftpipe"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m thriftpipe "$@"\n')
    program.chmod(0o755)
    done = subprocess.run(
        [shell, "-c", _ASK[shell]],
        capture_output=True,
        text=True,
        env={
            "PATH": f"{tmp_path}:/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "HOME": str(tmp_path),
            "LANG": "C.UTF-8",
        },
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for expected in ("serve", "int8", "--json"):
        assert expected in done.stdout, done.stdout + done.stderr


def test_models_lists_models_engines_and_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THRIFTPIPE_CACHE_DIR", str(tmp_path))
    (tmp_path / "calibration-0123.json").write_text("{}")
    (tmp_path / "else").write_text("12345")
    done = run_here(run, "models", "--json")
    found = json.loads(done.stdout)
    assert {model["name"] for model in found["models"]} == {"resnet50", "efficientnet_lite0"}
    assert all(model["file"] is None for model in found["models"])
    engines = {(engine["name"], engine["device"]): engine for engine in found["engines"]}
    assert "fp32" in engines["onnxruntime", "cpu"]["precisions"]
    assert engines["tensorrt", "cuda"]["missing"]
    assert found["cache"]["kinds"]["other files"] == {"files": 1, "bytes": 5}
    shown = run_here(run, "models").stdout
    assert "efficientnet_lite0" in shown
    assert "--engine auto takes onnxruntime in fp32" in " ".join(shown.split())


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_models_can_be_read_at_any_width(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("THRIFTPIPE_CACHE_DIR", "/nowhere")
    shown = run_here(run, "models").stdout
    words = shown.split()
    for provider in PROVIDERS:
        assert provider.name in words
    for title in ("device", "version", "precisions"):
        # A table has its titles once, and lines have them each time.
        assert words.count(title) == (len(PROVIDERS) if columns == 40 else 1)
    assert all(len(line.rstrip()) <= columns for line in shown.splitlines())


def test_the_reference_is_up_to_date() -> None:
    assert (ROOT / FILE).read_text() == reference(), "run python -m thriftpipe.door.reference"


def test_a_server_is_started_asked_and_stopped() -> None:
    server = ServerProcess(["-m", "thriftpipe", "serve", "--handler", "null", *OPTIONS], ROOT)
    try:
        done = run_here(run, "client", "ping", "--port", server.port())
        assert (done.returncode, done.stdout[:10]) == (0, "127.0.0.1:")
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
    finally:
        server.close()


def test_a_terminal_of_unknown_width_shows_everything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for line, told in ((["--help"], "Usage: thriftpipe COMMAND"), (["serv"], "did you mean")):
        monkeypatch.setenv("COLUMNS", "0")
        run(line)
        assert told in "".join(capsys.readouterr())


def test_an_interrupt_before_the_door_is_open_is_an_exit_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Interrupted(MetaPathFinder):
        def find_spec(self, name: str, *_: object) -> None:
            if name == "thriftpipe.door.group":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "thriftpipe.door.group")
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    assert main() == 130
