"""HAProxy on this machine, with the configuration that is shipped."""

from __future__ import annotations

import csv
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from loadtest.errors import LoadTestError
from loadtest.processes.child_process import ChildProcess
from loadtest.records.probe import tree_cpu_s

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "haproxy.cfg"
UP, DOWN = "UP", "DOWN"
QUICK_DRAIN_DELAY_S = 2.0
"""A server's --drain-delay-s that is longer than quick checks need."""
_TIMEOUT_S = 120.0
_SERVER_LINES = re.compile(r"(?m)(?:^ +server \w+ \S+\n)+")


class Server(NamedTuple):
    """Where a server behind HAProxy listens."""

    host: str
    port: int
    metrics_port: int


def is_installed() -> bool:
    """Whether there is an HAProxy here."""
    return shutil.which("haproxy") is not None


def haproxy_version() -> str:
    """Such as 2.6.12-1+deb12u4."""
    done = subprocess.run(["haproxy", "-v"], capture_output=True, text=True, check=True)
    return done.stdout.split()[2]


def on_loopback(front_port: int, own_port: int, servers: Mapping[str, Server]) -> str:
    """The shipped configuration for loopback: other ports and servers, and a user as it is.

    Args:
        front_port: of clients.
        own_port: of HAProxy's metrics and of its page.
        servers: by their names in the configuration.
    """
    lines = "".join(
        f"    server {name} {server.host}:{server.port} port {server.metrics_port}\n"
        for name, server in servers.items()
    )
    text = CONFIGURATION.read_text()
    for pattern, replacement in (
        # Who is not root cannot change that.
        (re.compile(r"user haproxy\n *group haproxy"), ""),
        (re.compile(r"bind :8095"), f"bind 127.0.0.1:{front_port}"),
        (re.compile(r"bind 127\.0\.0\.1:8404"), f"bind 127.0.0.1:{own_port}"),
        (_SERVER_LINES, lines),
    ):
        text, count = pattern.subn(replacement, text)
        assert count == 1, pattern
    return text


def with_quick_checks(text: str) -> str:
    """A configuration that asks servers ten times as often, so that tests wait for less."""
    text, count = re.subn("inter 1s", "inter 100ms", text)
    assert count == 1
    return text


class Balancer:
    """HAProxy, from when it listens to the end of the context.

    Args:
        configuration: its file.
        own_page: address and port of its metrics.
        before: a command that becomes HAProxy, in another place.

    Raises:
        LoadTestError: it does not start.
    """

    def __init__(
        self, configuration: Path, own_page: tuple[str, int], before: Sequence[str] = ()
    ) -> None:
        self._own_page = own_page
        with (
            TemporaryDirectory() as folder,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices,
        ):
            notices.bind(f"{folder}/notices")
            notices.settimeout(_TIMEOUT_S)
            # It says that it listens as a service of systemd's would.
            command = ["env", f"NOTIFY_SOCKET={folder}/notices", "haproxy", "-Ws"]
            self._process = ChildProcess(
                [*before, *command, "-f", str(configuration)], "HAProxy", merge_stderr=True
            )
            try:
                while b"READY=1" not in notices.recv(4096):
                    pass
            except BaseException as error:
                self._process.close()
                if isinstance(error, TimeoutError):
                    last = self._process.last_line
                    raise LoadTestError(f"HAProxy does not listen; its last line: {last}") from None
                raise

    def seen(self, name: str, state: str) -> str:
        """The line of its log that says that it has found a server UP or DOWN, once it has.

        Raises:
            LoadTestError: it does not say so.
        """
        text = f"Server servers/{name} is {state}"
        end_s = time.monotonic() + _TIMEOUT_S
        while (line := self._process.next_line(end_s, f"does not say: {text}")) is not None:
            if text in line:
                return line
        raise LoadTestError(self._process.ended())

    def state(self, name: str) -> str:
        """What it thinks of a server: UP, DOWN, or on the way to one of them."""
        return self._told(name)["status"]

    def connections(self, name: str) -> int:
        """How many connections a server has from it."""
        return int(self._told(name)["scur"])

    def cpu_s(self) -> float:
        """CPU time that its processes have taken."""
        return tree_cpu_s(self._process.pid)

    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process.exit_code() is None

    def _told(self, name: str) -> dict[str, str]:
        connection = HTTPConnection(*self._own_page, timeout=_TIMEOUT_S)
        connection.request("GET", "/;csv")
        text = connection.getresponse().read().decode()
        connection.close()
        rows = csv.DictReader(text.removeprefix("# ").splitlines())
        return next(row for row in rows if (row["pxname"], row["svname"]) == ("servers", name))

    def __enter__(self) -> Balancer:
        return self

    def __exit__(self, *raised: object) -> None:
        self._process.close()
