"""The port is taken at once, by one server only, and let go cleanly."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from service.accepting.listening_socket import address_text, bind, listen


@pytest.fixture
def bound() -> Iterator[socket.socket]:
    with bind("127.0.0.1", 0) as sock:
        yield sock


def test_a_bound_port_is_taken_before_clients_are_let_in(bound: socket.socket) -> None:
    """A second server fails at once, even while the first still loads its model."""
    port = bound.getsockname()[1]
    with pytest.raises(OSError, match=f"port {port} on 127.0.0.1 is in use by another process"):
        bind("127.0.0.1", port)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_a_listening_port_is_taken(bound: socket.socket) -> None:
    listen(bound, 1)
    with pytest.raises(OSError, match="stop it or choose another with --port"):
        bind("127.0.0.1", bound.getsockname()[1])


def test_the_port_is_never_shared(bound: socket.socket) -> None:
    listen(bound, 1)
    assert bound.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(bound.getsockname())


def test_connections_that_linger_do_not_block_a_restart(bound: socket.socket) -> None:
    """The side that closes first keeps the port in TIME_WAIT for a minute."""
    listen(bound, 1)
    port = bound.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)) as client:
        accepted, _ = bound.accept()
        bound.close()
        accepted.close()
        assert client.recv(1) == b""
    with bind("127.0.0.1", port) as again:
        listen(again, 1)
        assert again.getsockname()[1] == port


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("192.0.2.1", "not an address of this machine; choose another with --host"),
        ("no such host", "cannot resolve --host 'no such host'"),
    ],
)
def test_an_address_that_cannot_be_had_is_explained(host: str, told: str) -> None:
    with pytest.raises(OSError, match=told):
        bind(host, 0)


def test_ipv6_is_served_too() -> None:
    with bind("::1", 0) as sock:
        listen(sock, 1)
        address = sock.getsockname()
        with socket.create_connection(address[:2]):
            assert address_text(address) == f"[::1]:{address[1]}"
