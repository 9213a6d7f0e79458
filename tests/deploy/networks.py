"""Networks of a load balancer and two servers: network namespaces, or addresses of loopback."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.deploy.haproxy import QUICK_DRAIN_DELAY_S, Server, on_loopback, with_quick_checks
from tests.ports import free_port

_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True)
class Network:
    """Where each of them runs, and its HAProxy's configuration.

    Attributes:
        configuration: for HAProxy.
        front: address and port that it listens on.
        own_page: address and port of its metrics.
        servers: addresses of the two servers, by their names in the configuration.
        port: of both servers.
        metrics_port: of both servers.
        drain_delay_s: for the servers; on loopback it is longer than the checks need.
        namespaces: network namespaces of the balancer ("") and of the servers, by name; empty
            where all share that of the tests.
    """

    configuration: Path
    front: tuple[str, int]
    own_page: tuple[str, int]
    servers: dict[str, str]
    port: int
    metrics_port: int
    drain_delay_s: float
    namespaces: dict[str, str]

    def command(self, name: str) -> list[str]:
        """What goes before a command that is to run there."""
        if not self.namespaces:
            return []
        return ["ip", "netns", "exec", self.namespaces[name]]

    def enter(self) -> None:
        """Let the calling thread be at the balancer's place: what it opens from now on is there."""
        if not self.namespaces:
            return
        fd = os.open(f"/run/netns/{self.namespaces['']}", os.O_RDONLY)
        libc = ctypes.CDLL(None, use_errno=True)
        failed = libc.setns(fd, _CLONE_NEWNET)
        os.close(fd)
        assert not failed, os.strerror(ctypes.get_errno())


@contextmanager
def loopback(folder: Path) -> Iterator[Network]:
    """Addresses of loopback; the configuration gets these, free ports, and less time for checks."""
    front_port = free_port()
    port, metrics_port, own_port = (front_port + more for more in (1, 2, 3))
    servers = {"a": "127.0.0.2", "b": "127.0.0.3"}
    places = {name: Server(host, port, metrics_port) for name, host in servers.items()}
    configuration = folder / "haproxy.cfg"
    configuration.write_text(with_quick_checks(on_loopback(front_port, own_port, places)))
    yield Network(
        configuration,
        ("127.0.0.1", front_port),
        ("127.0.0.1", own_port),
        servers,
        port,
        metrics_port,
        drain_delay_s=QUICK_DRAIN_DELAY_S,
        namespaces={},
    )


@contextmanager
def namespaces(shipped: Path) -> Iterator[Network]:
    """A namespace for each host, with the addresses and ports of the configuration as it is.

    Raises:
        OSError: they cannot be made here.
    """
    text = shipped.read_text()
    servers = dict(re.findall(r"(?m)^ *server (\w+) ([\d.]+):8095$", text))
    assert len(servers) == 2
    names = {name: f"thriftpipe-{os.getpid()}-{name or 'front'}" for name in ("", *servers)}
    front = "192.0.2.1"
    try:
        for name in names.values():
            _ip("netns", "add", name)
            _ip("netns", "exec", name, "ip", "link", "set", "lo", "up")
        for number, (name, address) in enumerate(servers.items()):
            here, there = names[""], names[name]
            ends = (f"v{number}", "eth0")
            _ip(
                *("link", "add", ends[0], "netns", here),
                *("type", "veth", "peer", "name", ends[1], "netns", there),
            )
            _ip("-n", here, "address", "add", front, "peer", address, "dev", ends[0])
            _ip("-n", there, "address", "add", address, "peer", front, "dev", ends[1])
            _ip("-n", here, "link", "set", ends[0], "up")
            _ip("-n", there, "link", "set", ends[1], "up")
        yield Network(
            shipped,
            (front, 8095),
            ("127.0.0.1", 8404),
            servers,
            8095,
            9095,
            drain_delay_s=0.2,
            namespaces=names,
        )
    finally:
        for name in names.values():
            with suppress(OSError):
                _ip("netns", "delete", name)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
