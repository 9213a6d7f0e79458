"""Clients beyond --max-connections: probes are answered, calls are told to come back later."""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from idl import inference
from service.accepting.listener import RESERVE_CONNECTIONS
from service.accepting.reserve import ReserveTerms
from service.client import Client, OverloadedError
from service.wire.transport import Timeouts
from tests.robustness.wire import call, frame

HOST = "127.0.0.1"
NULL = ("-m", "service", "--handler", "null", "--port", "0")
# For all processes of a server.
PATIENT = """
import service.accepting.connection_threads
import service.accepting.reserve
service.accepting.reserve._LONGEST_S = 3600.0
"""
TOLD = "2 connections are open, as --max-connections allows; this one is closed"
SMALL, LARGE = b"x", b"x" * 3_000_000


@pytest.fixture
def full_server(serve: Any) -> Any:
    """One that has as many connections as it may."""
    server = serve(max_connections=2)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(Client(HOST, server.port)).ping()
        yield server


@pytest.mark.parametrize("framed", [True, False], ids=["framed", "unframed"])
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_a_call_is_told_when_to_come_back(full_server: Any, data: bytes, framed: bool) -> None:
    """More often than there are places for such connections."""
    for _ in range(2 * RESERVE_CONNECTIONS):
        client = full_server.client(framed=framed)
        with pytest.raises(inference.Overloaded) as caught:
            client.infer_batch(inference.InferenceParams("u", data))
        assert caught.value.message == TOLD
        assert caught.value.retry_after_ms > 0
        client.close()


@pytest.mark.parametrize("framed", [True, False], ids=["framed", "unframed"])
def test_probes_are_answered(full_server: Any, framed: bool) -> None:
    for _ in range(2 * RESERVE_CONNECTIONS):
        full_server.client(framed=framed).ping()
        assert full_server.client(framed=framed).health().ready
        assert full_server.client(framed=framed).server_info().handler == "null"


def test_the_end_comes_with_the_answer(full_server: Any, wire: Any) -> None:
    """So that no client takes the connection for one that it can use again."""
    for method in (b"ping", b"health"):
        with full_server.connect() as sock:
            sock.sendall(wire.frame(wire.header(method) + b"\0"))
            (length,) = struct.unpack(">i", sock.recv(4, socket.MSG_WAITALL))
            sock.recv(length, socket.MSG_WAITALL)
            assert sock.recv(1, socket.MSG_DONTWAIT) == b""


def test_our_client_comes_back(serve: Any) -> None:
    server = serve(max_connections=1)
    with Client(HOST, server.port, retries=0) as first, Client(HOST, server.port) as second:
        first.ping()
        for _ in range(3):
            second.ping()
            assert second.health().ready
        with Client(HOST, server.port, retries=0) as third:
            for _ in range(3):
                with pytest.raises(OverloadedError, match="1 connections are open"):
                    third.classify(SMALL)
        first.close()
        assert second.classify(SMALL).label == "tench"


@pytest.mark.parametrize("said", [b"", b"\0"], ids=["nothing", "half-a-message"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_silent_connections_keep_no_client_out(
    start: Any, tmp_path: Path, workers: str, said: bytes
) -> None:
    """However many they are, and however long they would be waited for."""
    (tmp_path / "sitecustomize.py").write_text(PATIENT)
    server = start(
        *NULL, "--message-timeout-s", "3600", "--workers", workers, "--max-connections", "2"
    )
    port = server.port()
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(Client(HOST, port)).ping()
        for _ in range(5 * RESERVE_CONNECTIONS):
            silent = stack.enter_context(socket.create_connection((HOST, port)))
            silent.sendall(said)
        with Client(HOST, port) as probe:
            probe.ping()
            assert probe.health().ready
        with Client(HOST, port, retries=0) as caller, pytest.raises(OverloadedError, match=TOLD):
            caller.classify(SMALL)
    server.process.terminate()
    assert server.wait() == 0
    assert "closed " not in server.log


def test_a_burst_of_connections_has_time_to_ask(start: Any, tmp_path: Path) -> None:
    """More than there are places for, which all connect before the first of them asks."""
    (tmp_path / "sitecustomize.py").write_text(
        PATIENT + "service.accepting.connection_threads.SILENCE_S = 3600.0"
    )
    port = start(*NULL, "--max-connections", "1").port()
    with ExitStack() as stack:
        stack.enter_context(Client(HOST, port)).ping()
        ping = frame(call(b"ping", 1))
        sockets = [
            stack.enter_context(socket.create_connection((HOST, port), timeout=60))
            for _ in range(RESERVE_CONNECTIONS + 20)
        ]
        for one in sockets:
            one.sendall(ping)
            assert one.recv(1)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_place_that_is_free_is_given_though_the_reserve_is_in_use(
    start: Any, tmp_path: Path, workers: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(PATIENT)
    port = start(*NULL, "--workers", workers, "--max-connections", "2").port()
    with ExitStack() as stack, Client(HOST, port) as first:
        first.ping()
        stack.enter_context(Client(HOST, port)).ping()
        for _ in range(2 * RESERVE_CONNECTIONS):
            stack.enter_context(socket.create_connection((HOST, port)))
        with Client(HOST, port, retries=0) as refused, pytest.raises(OverloadedError):
            refused.classify(SMALL)
        first.close()
        label = None
        # Until the server has noticed.
        while label is None:
            with Client(HOST, port, retries=0) as late, suppress(OverloadedError):
                label = late.classify(SMALL).label
        assert label == "tench"


def test_their_limits_are_at_most_those_of_the_others() -> None:
    assert ReserveTerms({}, Timeouts(0, 30, 30), 1).timeouts == Timeouts(2, 2, 2)
    assert ReserveTerms({}, Timeouts(1, 0.5, 0.25), 1).timeouts == Timeouts(1, 0.5, 0.25)
