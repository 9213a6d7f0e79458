"""Whether a client is still there, as the kernel says of real connections."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from service.wire.peer import Peer, call_arrived, current_peer, serve_peer


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
    peer = Peer(server)
    assert not peer.is_disconnected()
    client.sendall(b"more than is read")
    assert not peer.is_disconnected()


def test_what_the_server_does_while_it_drains_does_not_count(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    server = ends[1]
    server.shutdown(socket.SHUT_RD)
    assert not Peer(server).is_disconnected()


@pytest.mark.parametrize("unread", [b"", b"a reply"])
def test_one_that_closed_has_gone(ends: tuple[socket.socket, socket.socket], unread: bytes) -> None:
    """With unread bytes the connection is reset."""
    client, server = ends
    server.sendall(unread)
    client.close()
    assert Peer(server).is_disconnected()


def test_one_that_closed_its_half_has_gone(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    client.shutdown(socket.SHUT_WR)
    assert Peer(server).is_disconnected()


def test_so_has_one_that_the_server_cut_off(ends: tuple[socket.socket, socket.socket]) -> None:
    server = ends[1]
    peer = Peer(server)
    server.shutdown(socket.SHUT_RDWR)
    assert peer.is_disconnected()
    server.close()
    assert peer.is_disconnected()


def test_nothing_is_known_of_what_is_no_tcp_connection() -> None:
    here, there = socket.socketpair()
    there.close()
    with closing(here):
        assert not Peer(here).is_disconnected()


def test_a_thread_knows_its_own_client_only(ends: tuple[socket.socket, socket.socket]) -> None:
    seen: list[Peer | None] = []

    def serve() -> None:
        call_arrived()
        seen.append(current_peer())
        serve_peer(Peer(ends[1]))
        peer = current_peer()
        assert peer is not None
        first_s = peer.arrived_s
        call_arrived()
        assert peer.arrived_s >= first_s
        seen.append(peer)

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join()
    assert seen[0] is None
    assert isinstance(seen[1], Peer)
    assert current_peer() is None


def test_a_refusal_of_one_that_came_back_too_early_is_held_back(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    peer = Peer(ends[1])
    assert peer.held_back_s(50, 1000.0) == 0
    assert peer.held_back_s(50, 1000.04) == pytest.approx(0.01)
    # That one was told at 1000.05.
    assert peer.held_back_s(10_000, 1000.11) == 0
    assert peer.held_back_s(10, 1000.12) == pytest.approx(0.02), "0.02 s at most"
    assert peer.held_back_s(10, 1000.16) == 0
