"""Whether a client is still there, as the kernel says of real connections."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from service.caller import Caller, call_arrived, current_caller, serve_caller


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection: the client's end and the server's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with client, server:
        yield client, server


def test_a_client_that_waits_is_there(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    caller = Caller(server)
    assert not caller.has_gone()
    client.sendall(b"more than is read")
    assert not caller.has_gone()


def test_what_the_server_does_while_it_drains_does_not_count(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    server = ends[1]
    server.shutdown(socket.SHUT_RD)
    assert not Caller(server).has_gone()


@pytest.mark.parametrize("unread", [b"", b"a reply"])
def test_one_that_closed_has_gone(ends: tuple[socket.socket, socket.socket], unread: bytes) -> None:
    """With unread bytes the connection is reset."""
    client, server = ends
    server.sendall(unread)
    client.close()
    assert Caller(server).has_gone()


def test_one_that_closed_its_half_has_gone(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    client.shutdown(socket.SHUT_WR)
    assert Caller(server).has_gone()


def test_so_has_one_that_the_server_cut_off(ends: tuple[socket.socket, socket.socket]) -> None:
    server = ends[1]
    caller = Caller(server)
    server.shutdown(socket.SHUT_RDWR)
    assert caller.has_gone()
    server.close()
    assert caller.has_gone()


def test_nothing_is_known_of_what_is_no_tcp_connection() -> None:
    here, there = socket.socketpair()
    there.close()
    with closing(here):
        assert not Caller(here).has_gone()


def test_a_thread_knows_its_own_client_only(ends: tuple[socket.socket, socket.socket]) -> None:
    seen: list[Caller | None] = []

    def serve() -> None:
        call_arrived()
        seen.append(current_caller())
        serve_caller(ends[1])
        caller = current_caller()
        assert caller is not None
        first_s = caller.arrived_s
        call_arrived()
        assert caller.arrived_s >= first_s
        seen.append(caller)

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join()
    assert seen[0] is None
    assert isinstance(seen[1], Caller)
    assert current_caller() is None
