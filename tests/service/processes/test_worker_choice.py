"""`--workers auto` in real servers that take this host for one of eight cores."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from service.handlers.table import ALONE, HANDLERS, LOAD_MODULES
from tests.serving import ON_EIGHT_CORES, ServerProcess, connect

Start = Callable[..., ServerProcess]

PIPELINE = ("-c", ON_EIGHT_CORES, "--handler", "pipeline", "--port", "0")
LOAD = """
import sys
from interfaces.messages import from_json, to_json
from service.handlers.handler_settings import HandlerSettings
from service.handlers.process_load import ProcessLoad
settings = from_json(sys.stdin.read(), [HandlerSettings])
assert settings.overrides == {"a": "1"}, settings
print("a line of some library")
print(to_json(ProcessLoad()))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package "pipeline" of the servers, whose handler is the null one."""
    folder = tmp_path / "pipeline"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "handler.py").write_text("from service.handlers.null import create_handler\n")
    return folder


def test_auto_starts_as_many_as_suit_the_host_and_says_why(start: Start, package: Path) -> None:
    (package / "process_load.py").write_text(LOAD)
    server = start(*PIPELINE, "--set", "a=1")
    port = server.port()
    line = next(line for line in server.log.splitlines() if " workers: " in line)
    chosen = line.partition(" workers: ")[2]
    assert chosen.startswith("2 (auto: 8 cores, decoding and engine on the CPU: one for each 4 ")
    assert " GiB at most of " in chosen
    with closing(connect(port)) as one, closing(connect(port)) as two:
        infos = [one.server_info(), two.server_info()]
    assert {info.worker for info in infos} == {0, 1}
    assert {(info.workers, info.settings["workers"]) for info in infos} == {(2, chosen)}
    assert len(psutil.Process(server.process.pid).children()) == 2
    server.process.terminate()
    assert server.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--workers", "1"), "--workers"),
        (("--workers", "auto", "--backends", "own.py"), "auto: what the code of --backends takes"),
        (("--handler", "null"), "auto: the null handler shows the cost of one process"),
    ],
    ids=["asked-for", "unknown-code", "null"],
)
def test_one_process_where_that_is_asked_for_or_right(
    start: Start, package: Path, tmp_path: Path, arguments: tuple[str, ...], why: str
) -> None:
    """What a process takes is not even looked into."""
    (package / "process_load.py").write_text("raise RuntimeError")
    (tmp_path / "own.py").touch()
    server = start(*PIPELINE, *arguments)
    port = server.port()
    assert f"INFO service.server: workers: 1 ({why}" in server.log
    assert "WARNING" not in server.log
    with closing(connect(port)) as client:
        info = client.server_info()
    assert (info.workers, info.pid, info.supervisor_pid) == (1, server.process.pid, None)
    assert info.settings["workers"].startswith(f"1 ({why}")


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("raise RuntimeError('no\\nsuch engine')", "such engine"),
        ("print('{}')", "pipeline.process_load gave no answer"),
        ("import os; os._exit(3)", "exit code 3"),
    ],
)
def test_one_process_where_the_load_is_unknown(
    start: Start, package: Path, program: str, told: str
) -> None:
    (package / "process_load.py").write_text(program)
    server = start(*PIPELINE)
    server.port()
    assert f"one process serves, since what several would take is unknown: {told}" in server.log
    assert not psutil.Process(server.process.pid).children()


def test_a_mistake_is_told_by_the_start_alone(start: Start, package: Path) -> None:
    (package / "handler.py").write_text(
        "from service.errors import ConfigurationError\n"
        "def create_handler(settings):\n    raise ConfigurationError('no such engine')\n"
    )
    (package / "process_load.py").write_text("import sys\nsys.exit(2)\n")
    server = start(*PIPELINE)
    assert server.wait() == 2
    assert server.log == "error: no such engine\n"


def test_a_signal_ends_the_start_meanwhile(start: Start, package: Path) -> None:
    os.mkfifo(package / "begun")
    program = f"import time\nopen({str(package / 'begun')!r}, 'w').close()\ntime.sleep(3600)\n"
    (package / "process_load.py").write_text(program)
    server = start(*PIPELINE)
    (package / "begun").read_bytes()
    server.process.send_signal(signal.SIGUSR1)
    server.process.send_signal(signal.SIGTERM)
    assert server.wait() == 128 + signal.SIGTERM
    assert not server.left_behind()
    assert "Traceback" not in server.log


def test_a_port_in_use_is_told_first(start: Start, package: Path) -> None:
    (package / "process_load.py").write_text("import time\ntime.sleep(3600)\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = start(*PIPELINE, "--port", str(port))
        assert server.wait() == 1
    assert f"port {port} on 127.0.0.1 is in use" in server.log


def test_each_handler_is_one_process_or_says_what_one_takes() -> None:
    assert ALONE.keys() | LOAD_MODULES.keys() == HANDLERS.keys()
    assert not ALONE.keys() & LOAD_MODULES.keys()
