"""docs/clients.md: its examples and commands run, and its tables are the code's."""

from __future__ import annotations

import inspect
import io
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import service.client
from service.client import Client, ClientError
from service.client.client_command import main
from tests.service.pictures import PICTURE

PAGE = (Path(__file__).parents[3] / "docs" / "clients.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that the page names, but for b.png."""
    (tmp_path / "photos").mkdir()
    for name in ("photo.jpg", "photos/1.jpg"):
        (tmp_path / name).write_bytes(PICTURE + b"best=3")
    for name in ("a.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(PICTURE + b"best=1")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("photos")
def test_the_examples_run(scripted_server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    blocking, asynchronous = EXAMPLES
    port = str(scripted_server.port)
    exec(blocking.replace("8095", port), {})  # noqa: S102 (the page is ours)
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith("class_3 0.6")
    assert second == "class_1"
    # Of the images that it names one is not there, and its neighbour is answered.
    assert "b.png" in third
    exec(asynchronous.replace("8095", port), {})  # noqa: S102
    assert capsys.readouterr().out == "['class_1', 'class_1']\n"


@pytest.mark.usefixtures("photos")
def test_the_commands_run(scripted_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    block = PAGE.split("## Command line")[1].split("```sh\n")[1].split("```")[0]
    lines = [line.partition("#")[0] for line in block.strip().splitlines()]
    assert len(lines) == 6
    for line in lines:
        command, _, given = line.removeprefix("python -m service.client ").partition("<")
        if given:
            stdin = io.TextIOWrapper(io.BytesIO(Path(given.strip()).read_bytes()))
            monkeypatch.setattr("sys.stdin", stdin)
        assert main([*shlex.split(command), "--port", str(scripted_server.port)]) == 0


def test_the_tables_are_complete() -> None:
    for name in service.client.__all__:
        value = getattr(service.client, name)
        if isinstance(value, type) and issubclass(value, ClientError) and value != ClientError:
            assert f"| `{name}` |" in PAGE
    rows = re.findall(r"^\| (`.*?`) \| (.*?) \|", PAGE.split("### Settings")[1], re.MULTILINE)
    shown = {}
    for names, defaults in rows:
        names, defaults = re.findall(r"`(\w+)`", names), defaults.split(", ")
        shown.update(zip(names, defaults * (len(names) // len(defaults)), strict=True))
    settings = inspect.signature(Client).parameters
    assert shown == {name: str(setting.default) for name, setting in settings.items()}
