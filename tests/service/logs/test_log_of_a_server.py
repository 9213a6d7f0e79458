"""The log of a server process: JSON, a file, a file that is moved or cannot be written."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from service.cli import main
from service.logs.formats import Event, formatter
from service.logs.line_writer import LineWriter
from service.logs.log_settings import LogSettings
from service.logs.queued import REQUESTS, QueuedLog
from tests.waiting import wait_until

TIMEOUT_S = 30
NULL = ("-m", "service", "--handler", "null", "--port", "0")

Start = Callable[..., Any]


def record(message: object, *arguments: object, **others: Any) -> logging.LogRecord:
    exc_info = others.get("exc_info")
    return logging.LogRecord("a.b", logging.INFO, "", 0, message, arguments, exc_info)


def cause_a_line(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while sock.recv(4096):
            pass


@contextmanager
def follow(path: Path) -> Iterator[Callable[[str], str]]:
    """Gives the next line of a file that has a text, once it is there."""
    with path.open() as file:

        def until(text: str) -> str:
            line = ""
            while text not in line or not line.endswith("\n"):
                line = line * (not line.endswith("\n")) + file.readline()
            return line

        yield until


def test_json_has_a_field_for_each_thing() -> None:
    json_lines = formatter("json", "worker 0")
    try:
        raise ValueError("no way\non")
    except ValueError as error:
        line = json_lines.format(record("%s is “bad”", 3, exc_info=(ValueError, error, None)))
    assert "\n" not in line
    told = json.loads(line)
    assert datetime.fromisoformat(told.pop("time").replace("Z", "+00:00")).year > 2000
    assert told == {
        "level": "INFO",
        "process": "worker 0",
        "pid": os.getpid(),
        "logger": "a.b",
        "message": "3 is “bad”",
        "exception": "ValueError: no way\non",
    }


def test_an_event_is_text_and_fields() -> None:
    event = Event("request", {"method": "ping", "images": None, "ms": 1.5})
    told = json.loads(formatter("json", "").format(record(event)))
    assert (told["message"], told["method"], told["ms"]) == ("request", "ping", 1.5)
    assert "images" not in told
    assert told["process"] == "server"
    line = formatter("text", "worker 1").format(record(event))
    assert line.endswith(" INFO worker 1 a.b: request: method=ping ms=1.5")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_log_file_of_json_that_is_moved_away(start: Start, tmp_path: Path, workers: str) -> None:
    """SIGHUP is for the process that was started; its workers see by themselves what was moved."""
    path = tmp_path / "server.log"
    server = start(*NULL, "--workers", workers, "--log-file", path.name, "--log-format", "json")
    wait_until(lambda: path.exists() or server.process.poll() is not None)
    with follow(path) as until:
        port = int(json.loads(until("ready: "))["message"].rpartition(":")[2])
    moved = path.rename(tmp_path / "server.log.1")
    server.process.send_signal(signal.SIGHUP)
    wait_until(path.exists)
    with follow(path) as until:
        until("the log file is open")
        cause_a_line(port)
        closed = json.loads(until("HTTP"))
    assert closed["process"].startswith("server" if workers == "1" else "worker ")
    assert (closed["level"], closed["logger"]) == ("WARNING", "service.wire.connection")
    server.process.terminate()
    assert server.wait() == 0
    assert server.log == ""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert any(line["message"].startswith("stopping (SIGTERM)") for line in lines)
    assert "the log file is open" not in moved.read_text()
    assert path.stat().st_mode & 0o007 == 0


def test_a_log_file_that_cannot_be_opened_is_a_mistake(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    assert main(["--handler", "null", "--port", "0", "--log-file", f"{tmp_path}/no/x"]) == 2
    told = capfd.readouterr().err
    assert told == f"error: --log-file: {tmp_path}/no/x: No such file or directory\n"
    assert logging.root.handlers == []


def test_lines_that_cannot_be_written_are_counted_and_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "folder" / "server.log"
    writer = LineWriter(str(path), str)
    writer.write(["lost", "lost"])
    writer.write(["lost"])
    told = capfd.readouterr().err
    assert told == f"log lines are lost: {path}: No such file or directory\n"
    path.parent.mkdir()
    writer.write(["written", "too"])
    assert path.read_text() == "3 log lines were lost: No such file or directory\nwritten\ntoo\n"
    path.parent.rename(tmp_path / "moved")
    writer.write(["lost"])
    path.parent.mkdir()
    writer.write(["again"])
    assert path.read_text() == "1 log lines were lost: No such file or directory\nagain\n"


def test_a_line_that_was_written_in_part_ends_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    room_bytes = fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 4096)
    whole, torn = "a" * (room_bytes - 1000), "b" * 2000
    writer = LineWriter(str(path), "told: {}".format)
    writer.write([whole, torn])
    writer.write(["lost"])
    there = os.read(end, room_bytes)
    writer.write(["written"])
    there += os.read(end, room_bytes)
    os.close(end)
    assert there.decode().splitlines() == [
        whole,
        torn[: room_bytes - len(whole) - 1],
        f"told: 2 log lines were lost: {os.strerror(errno.EAGAIN)}",
        "written",
    ]


def test_what_is_told_of_lost_lines_has_the_form_of_the_others(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "server.log"
    handler = QueuedLog(LogSettings(log_file=str(path), log_format="json"), "worker 1")
    handler.handle(record("lost"))
    path.parent.mkdir()
    handler.handle(record("written"))
    told, written = map(json.loads, path.read_text().splitlines())
    assert (told["level"], told["process"]) == ("WARNING", "worker 1")
    assert told["message"] == "1 log lines were lost: No such file or directory"
    assert written["message"] == "written"


def test_what_python_itself_would_write_is_logged_too(tmp_path: Path) -> None:
    code = (
        "import threading, warnings\n"
        "from service.logs.log_settings import LogSettings\n"
        "from service.logs.start import start_log\n"
        "start_log(LogSettings(log_format='json', log_file='x.log'))\n"
        "warnings.warn('mind the gap')\n"
        "thread = threading.Thread(target=lambda: 1 / 0, name='adder')\n"
        "thread.start(); thread.join()\n"
        "raise KeyError('gone')\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    lines = [json.loads(line) for line in (tmp_path / "x.log").read_text().splitlines()]
    warned, thread, process = lines
    assert (warned["logger"], warned["level"]) == ("py.warnings", "WARNING")
    assert "mind the gap" in warned["message"]
    assert thread["message"] == "the thread 'adder' ended by an exception"
    assert thread["exception"].endswith("ZeroDivisionError: division by zero")
    assert (process["level"], process["exception"][-14:]) == ("CRITICAL", "KeyError: 'gone'"[-14:])


def test_a_full_disk_costs_lines_and_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    writer = LineWriter("/dev/full", str)
    for _ in range(2):
        writer.write(["lost"])
    assert capfd.readouterr().err == "log lines are lost: /dev/full: No space left on device\n"


def test_lines_of_requests_wait_for_others_and_none_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    handler = QueuedLog(LogSettings(log_file=str(path)), "")
    many = logging.makeLogRecord({"name": REQUESTS, "levelname": "INFO", "msg": "one of many"})
    for _ in range(3000):
        handler.handle(many)
    handler.handle(logging.makeLogRecord({"name": "other", "msg": "the last one"}))
    # It is written before its thread goes on, and so are those before it.
    lines = path.read_text().splitlines()
    assert len(lines) == 3001
    assert lines[-1].endswith("other: the last one")
    assert all(line.endswith("service.requests: one of many") for line in lines[:-1])
