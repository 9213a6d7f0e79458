"""`python -m service` as a process: start, signals, exit codes, error lines."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from thriftpy2.rpc import make_client

from idl import inference
from service.cli import main

TIMEOUT_S = 30
NULL = ("-m", "service", "--handler", "null", "--port", "0")

# The null handler, but for b"wait": it reports by one FIFO and waits for the other.
WAITING_SERVER = """
import sys
from service import cli
from service.handlers import null, table

class WaitingHandler(null.NullHandler):
    def classify(self, images, deadline):
        if images[0] == b"wait":
            open("entered", "w").close()
            open("release").close()
        return super().classify(images, deadline)
    def close(self):
        print("handler closed", file=sys.stderr, flush=True)

def create_handler(settings):
    return WaitingHandler()

if __name__ == "__main__":
    table.HANDLERS["null"] = "waiting_server:create_handler"
    sys.exit(cli.main())
"""


Start = Callable[..., Any]


@pytest.fixture
def start_waiting(start: Start, tmp_path: Path) -> Callable[..., tuple[Any, Any]]:
    """Starts a server with one request in flight: (server, thread that gets the reply)."""
    (tmp_path / "waiting_server.py").write_text(WAITING_SERVER)
    os.mkfifo(tmp_path / "entered")
    os.mkfifo(tmp_path / "release")

    def start_one(*arguments: str) -> tuple[Any, Any]:
        server = start("waiting_server.py", "--handler", "null", "--port", "0", *arguments)
        request = Request(server.port())
        request.start()
        (tmp_path / "entered").read_bytes()
        return server, request

    return start_one


class Request(threading.Thread):
    """One call that takes as long as the server does."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port
        self.outcome: Any = None

    def run(self) -> None:
        service = inference.InferenceService
        client = make_client(service, "127.0.0.1", self.port, timeout=TIMEOUT_S * 1000)
        try:
            self.outcome = client.infer_batch(inference.InferenceParams("u", b"wait"))
        except Exception as error:  # noqa: BLE001 (the test looks at whatever came)
            self.outcome = error
        client.close()


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def assert_one_line_error(
    done: subprocess.CompletedProcess[str], told: str, exit_code: int = 2
) -> None:
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert told in done.stderr
    assert done.stdout == ""
    assert done.returncode == exit_code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_a_signal_and_exits_with_0(start: Start, number: int) -> None:
    server = start(*NULL)
    port = server.port()
    client = make_client(inference.InferenceService, "127.0.0.1", port)
    info = client.server_info()
    assert (info.handler, info.pid) == ("null", server.process.pid)
    children = psutil.Process(server.process.pid).children(recursive=True)
    assert children == []
    server.process.send_signal(number)
    assert server.wait() == 0
    assert f"stopping ({signal.Signals(number).name})" in server.log
    assert "Traceback" not in server.log
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    client.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_in_flight_is_answered_before_it_exits(
    start_waiting: Any, tmp_path: Path, number: int
) -> None:
    server, request = start_waiting()
    server.process.send_signal(number)
    server.read_until("finishing 1 requests in flight")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", request.port))
    (tmp_path / "release").write_bytes(b"")
    request.join(TIMEOUT_S)
    assert request.outcome.label == "tench"
    assert server.wait() == 0
    assert "handler closed" in server.log


def test_a_second_signal_ends_it_at_once(start_waiting: Any) -> None:
    server, request = start_waiting()
    server.process.terminate()
    server.read_until("finishing 1 requests in flight")
    server.process.send_signal(signal.SIGINT)
    assert server.wait() == 128 + signal.SIGINT
    request.join(TIMEOUT_S)
    assert isinstance(request.outcome, Exception)


def test_a_drain_that_takes_too_long_is_cut_off_with_exit_code_1(start_waiting: Any) -> None:
    server, request = start_waiting("--drain-timeout-s", "0.1")
    server.process.terminate()
    assert server.wait() == 1
    assert "1 requests were cut off: not finished within --drain-timeout-s = 0.1" in server.log
    assert "handler closed" not in server.log
    request.join(TIMEOUT_S)
    assert isinstance(request.outcome, Exception)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_start_up_ends_it(start: Start, tmp_path: Path, number: int) -> None:
    """No client has been served yet, so there is nothing to drain."""
    (tmp_path / "slow_server.py").write_text(
        WAITING_SERVER.replace("waiting_server", "slow_server").replace(
            "    return Waiting",
            "    open('entered', 'w').close()\n    open('release').close()\n    return Waiting",
        )
    )
    os.mkfifo(tmp_path / "entered")
    os.mkfifo(tmp_path / "release")
    server = start("slow_server.py", "--handler", "null", "--port", "0")
    (tmp_path / "entered").read_bytes()
    server.process.send_signal(number)
    assert server.wait() == 128 + number
    assert "Traceback" not in server.log


def test_a_second_server_on_the_port_fails_with_exit_code_1(start: Start) -> None:
    server = start(*NULL)
    port = server.port()
    done = run("--handler", "null", "--port", str(port))
    told = f"port {port} on 127.0.0.1 is in use by another process; stop it or choose another"
    assert_one_line_error(done, told, exit_code=1)
    client = make_client(inference.InferenceService, "127.0.0.1", port)
    client.ping()
    client.close()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--handler",), "--handler: expected one argument"),
        (("--handler", "pipelin"), "unknown handler 'pipelin'; did you mean 'pipeline'?"),
        (("--handler", "null", "--prot", "1"), "did you mean '--port'?"),
        (("--handler", "null", "--port", "x"), "--port: takes a port, got 'x'"),
        (("--handler", "null", "--port", "70000"), "--port: must be 0 to 65535, got 70000"),
        (("--handler", "null", "--workers", "0"), "--workers: must be 1 to 256, got 0"),
        (
            ("--handler", "baseline", "--max-batch-size", "0"),
            "--max-batch-size: must be at least 1, got 0",
        ),
        (("--handler", "null", "--workers", "99999"), "--workers: must be 1 to 256, got 99999"),
        (
            ("--handler", "null", "--workers", "two"),
            "--workers: takes a whole number or auto, got 'two'",
        ),
        (("--handler", "null", "--workers", "atuo"), "got 'atuo'; did you mean 'auto'?"),
        (
            ("--handler", "null", "--log-level", "loud"),
            "warning, error, got 'loud'",
        ),
        (("--handler", "null", "--host", "no host"), "cannot resolve --host 'no host'"),
        (("--handler", "null", "--model", "resnet50"), "--model: the null handler runs no model"),
        (("--handler", "baseline", "--config", "x.toml"), "no TOML file and no nodes"),
        (("--handler", "baseline", "--set", "a=1"), "no TOML file and no nodes"),
        (("--handler", "pipeline", "--no-lock"), "the pipeline takes no lock"),
        (("--handler", "pipeline", "--max-batch-size", "8"), "--set NODE.max="),
        (("--handler", "pipeline", "--set", "timeout"), "takes [NODE.]KEY=VALUE"),
        (("--handler", "baseline", "--calibration-images", "none"), "there is no folder none"),
        (("--handler", "null", "--calibration-images", "."), "the null handler runs no model"),
        (("--handler", "pipeline", "--mean", "1,2"), "takes one number or three"),
        (("--handler", "pipeline", "--mean", "1,2,nan"), "takes one number or three"),
        (("--handler", "pipeline", "--mean", "1,2,3"), "--mean and --std go together"),
        (("--handler", "pipeline", "--mean", "1,2,3", "--std", "1,0,1"), "must not hold 0"),
        (("--handler", "pipeline", "--config", "grahp.toml"), "did you mean graph.toml?"),
        (("--handler", "pipeline", "--weights", "none/w.pt"), "there is no folder none"),
        (("--handler", "baseline", "--model", "modle.onnx"), "did you mean model.onnx?"),
        (("--handler", "baseline", "--model", "./"), "is a folder"),
        (("--handler", "baseline", "--decode", "gpu"), "the baseline decodes on the CPU"),
        (("--handler", "null", "--decode", "gpu"), "the null handler runs no model"),
        (("--handler", "pipeline", "--decode", "gqu"), "got 'gqu'; did you mean 'gpu'?"),
        (
            ("--handler", "pipeline", "--decode", "gpu", "--config", "graph.toml"),
            "--decode chooses the shipped graph, and --config names another",
        ),
        (("--handler", "pipeline", "--devices", "0,"), "takes GPU numbers from 0"),
        (("--handler", "pipeline", "--devices", "cuda"), "got 'cuda'"),
        (("--handler", "pipeline", "--devices=-1"), "got '-1'"),
        (("--handler", "pipeline", "--devices", "1,0,1"), "takes each GPU once; 1 is there"),
        (("--handler", "pipeline", "--devices", "0,77"), "there is no GPU "),
        (("--handler", "baseline", "--devices", "77"), "there is no GPU 77"),
        (("--handler", "null", "--devices", "0"), "--devices: the null handler runs no model"),
        (("--handler", "null", "--labels", "lables.txt"), "did you mean labels.txt?"),
        (("--handler", "null", "--labels", "labels.txt"), "1 labels, the model has 1000"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_is_told_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("graph.toml", "model.onnx", "labels.txt"):
        (tmp_path / name).write_text("one line\n")
    port = () if "--port" in arguments else ("--port", "0")
    try:
        exit_code = main(["--workers", "1", *arguments, *port])
    except SystemExit as ended:
        exit_code = ended.code if isinstance(ended.code, int) else -1
    output = capfd.readouterr()
    assert exit_code == (1 if "--host" in arguments else 2)
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1
    assert told in output.err
    assert output.out == ""


def test_a_share_of_cores_that_is_none_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("THRIFTPIPE_CORES", "all")
    assert_one_line_error(
        run("--handler", "null", "--port", "0"), "THRIFTPIPE_CORES takes a number"
    )


def test_a_mistake_of_a_process_is_one_line_with_exit_code_2() -> None:
    assert_one_line_error(run("--handler", "pipelin"), "did you mean 'pipeline'?")


def test_help_names_every_option_with_its_default() -> None:
    text = " ".join(run("--help").stdout.split())
    for part in (
        "{baseline,pipeline,null}",
        "measuring aid",
        "--host HOST name or address to listen on (default: 127.0.0.1)",
        "(default: 8095)",
        "(default: 16384000)",
        "(default: 1024)",
        "(default: 30)",
        "(default: info)",
        "(default: auto)",
        "(default: 4)",
    ):
        assert part in text
    assert "SUPPRESS" not in text


def test_the_ready_line_names_the_address(start: Start) -> None:
    line = start(*NULL).read_until("ready: ")
    assert re.search(r"ready: null handler \(none, none, none\) on 127\.0\.0\.1:\d+$", line)
