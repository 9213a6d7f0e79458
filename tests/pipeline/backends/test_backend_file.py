"""`--backends FILE.py`: what is registered, and what is told of a file that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import pipe
from pipeline.backends.backend_file import load_backends
from pipeline.commands.dispatch import main
from pipeline.errors import PipelineConfigError
from service.errors import ConfigurationError
from service.handlers.handler_settings import HandlerSettings
from service.handlers.table import create_handler
from service.options.server_arguments import parse_arguments
from service.options.validation import handler_settings

TRIPLE = """
from dataclasses import dataclass
from pipeline import Status, register_backend, register_filter

@dataclass
class Factor:
    value: int = 3

@register_backend(name="FileTriple")
class Triple:
    def forward(self, items):
        for item in items:
            item["result"] = item["data"] * Factor().value

register_filter("file_small")(lambda item: Status.RUN if item["data"] < 10 else Status.BREAK)
"""


@pytest.fixture(scope="module")
def triple(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a backend and a filter; a process executes it once."""
    path = tmp_path_factory.mktemp("backends") / "triple.py"
    path.write_text(TRIPLE)
    load_backends(str(path))
    return path


def test_its_backends_and_filters_are_known(triple: Path) -> None:
    # Again, as a second pipeline of the same process asks for it.
    load_backends(str(triple))
    with pipe({"only": {"backend": "S[FileTriple,(file_small)FileTriple]"}}) as run:
        item = {"data": 2}
        run(item)
    assert item["result"] == 6


def test_the_commands_take_it(triple: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toml = triple.with_name("graph.toml")
    toml.write_text('[only]\nbackend = "FileTriple"\n')
    for command in ("show", "check"):
        assert main([command, str(toml), "--backends", str(triple)]) == 0
    assert "FileTriple" in capsys.readouterr().out
    assert main(["show", str(toml), "--backends", str(triple.with_name("tripel.py"))]) == 2
    assert f"did you mean {triple}?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nraise OSError('no\\nway')\n", "line 2: OSError: no$"),
        ("x = (\n", "line 1: SyntaxError: '\\(' was never closed"),
        ("def f():\n    g()\n\n\nf()\n", "line 2: NameError: name 'g' is not defined"),
        ("import pipeline\n\npipeline.register_backend(3)\n", "line 3: TypeError: register_back"),
        ("raise SystemExit(4)\n", "line 1: SystemExit: 4"),
        ("import json\njson.loads('{')\n", "line 2: JSONDecodeError"),
    ],
)
def test_a_file_that_raises_is_one_line_with_its_place(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "bad.py"
    path.write_text(text)
    with pytest.raises(PipelineConfigError, match=message) as raised:
        load_backends(str(path))
    assert str(raised.value).startswith(f"--backends: {path}, line ")
    assert "\n" not in str(raised.value)


def test_what_is_no_python_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineConfigError, match=r"takes a Python file, FILE\.py; got"):
        load_backends(str(tmp_path))
    large = tmp_path / "large.py"
    large.write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(PipelineConfigError, match="has 1048577 bytes, more than 1048576"):
        load_backends(str(large))


def test_the_service_hands_it_to_the_pipeline_alone(triple: Path) -> None:
    def settings(handler: str, path: Path) -> HandlerSettings:
        return handler_settings(parse_arguments(["--handler", handler, "--backends", str(path)]))

    assert settings("pipeline", triple).backends == str(triple)
    with pytest.raises(ConfigurationError, match="--backends: there is no file"):
        settings("pipeline", triple.with_name("other.py"))
    with pytest.raises(ConfigurationError, match="--backends: the baseline has no TOML file"):
        settings("baseline", triple)
    with pytest.raises(ConfigurationError, match="--backends: the null handler runs no model"):
        settings("null", triple)


def test_a_file_that_raises_ends_the_start_of_the_handler(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("import nowhere_to_be_found\n")
    with pytest.raises(ConfigurationError, match="line 1: ModuleNotFoundError"):
        create_handler("pipeline", HandlerSettings(backends=str(path)))
