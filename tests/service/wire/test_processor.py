"""Calls, replies and exceptions on the wire."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from thriftpy2.thrift import TApplicationException

from idl import inference

Params = inference.InferenceParams


def test_the_sequence_id_is_echoed(null_server: Any, wire: Any) -> None:
    for sequence_id in (0, 7, -1, 2**31 - 1):
        with null_server.connect() as sock:
            reply = wire.exchange(sock, wire.infer_batch(sequence_id=sequence_id))
        assert reply.startswith(wire.header(b"infer_batch", 2, sequence_id))


def test_an_unknown_method_is_answered_and_the_connection_lives_on(
    null_server: Any, wire: Any
) -> None:
    with null_server.connect() as sock:
        reply = wire.exchange(sock, wire.header(b"infer_btch") + b"\0" + wire.infer_batch())
    assert reply.startswith(wire.header(b"infer_btch", 3))
    assert b"unknown method 'infer_btch'; this service has ping, infer_batch" in reply
    assert b"\x08\x00\x02\x00\x00\x00\x01" in reply, "type UNKNOWN_METHOD"
    assert b"tench" in reply


def test_a_method_name_that_is_no_text_is_answered(null_server: Any, wire: Any) -> None:
    with null_server.connect() as sock:
        reply = wire.exchange(sock, wire.header(b"\xff\xfe") + b"\0")
    assert reply.startswith(wire.header(b"\xff\xfe", 3))


@pytest.mark.parametrize(
    ("args", "missing"),
    [
        (b"", "params"),
        (b"\x0c\x00\x01\x00", "params.uuid"),
        (b"\x0c\x00\x01\x0b\x00\x01\x00\x00\x00\x01u\x00", "params.data"),
        (b"\x0b\x00\x01\x00\x00\x00\x01u", "params"),
        (b"\x0c\x00\x01\x08\x00\x01\x00\x00\x00\x01\x00", "params.uuid"),
    ],
    ids=["no-params", "empty-params", "no-data", "params-of-another-type", "uuid-of-another-type"],
)
def test_a_missing_required_field_is_named(
    null_server: Any, wire: Any, args: bytes, missing: str
) -> None:
    with null_server.connect() as sock:
        reply = wire.exchange(sock, wire.header(b"infer_batch") + args + b"\0")
    assert reply.startswith(wire.header(b"infer_batch", 3))
    assert f"'{missing}'".encode() in reply
    assert b"\x08\x00\x02\x00\x00\x00\x07" in reply, "type PROTOCOL_ERROR"


def test_a_field_missing_in_one_of_many_images_is_named(null_server: Any) -> None:
    client = null_server.client()
    with pytest.raises(TApplicationException, match=r"'requests\[1\]\.data'"):
        client.infer_images([Params("a", b"x"), Params("b"), Params("c", b"x")])
    client._send("infer_images")
    with pytest.raises(TApplicationException, match="'requests'"):
        client._recv("infer_images")
    assert client.infer_images([]) == []
    client.close()


def test_a_uuid_that_is_no_text_is_echoed_as_it_is(null_server: Any, wire: Any) -> None:
    params = wire.string(1, b"\xff\xfe") + wire.string(2, b"x") + b"\0"
    args = b"\x0f\x00\x01\x0c\x00\x00\x00\x01" + params + b"\0"
    with null_server.connect() as sock:
        reply = wire.exchange(sock, wire.header(b"infer_images") + args)
    assert b"\x0b\x00\x03\x00\x00\x00\x02\xff\xfe" in reply


@pytest.mark.parametrize("framed", [True, False], ids=["framed", "buffered"])
def test_a_failure_of_the_server_travels_as_the_declared_internal_error(
    scripted_server: Any, caplog: pytest.LogCaptureFixture, framed: bool
) -> None:
    """With an id that is in the log beside the traceback, and without the cause."""
    client = scripted_server.client(framed=framed)
    calls: tuple[Callable[[], Any], ...] = (
        lambda: client.infer_batch(Params("u", b"raise")),
        lambda: client.infer_images([Params("u", b"x"), Params("u", b"raise")]),
    )
    for call in calls:
        caplog.clear()
        with pytest.raises(inference.InternalError) as caught:
            call()
        assert "secret" not in caught.value.message
        (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
        assert caught.value.error_id in record.getMessage()
        assert "secret cause" in caplog.text
        assert "Traceback" in caplog.text
    assert client.infer_batch(Params("u", b"x")).label == "class_0"
    client.close()


@pytest.mark.parametrize("failure", [SystemExit, KeyboardInterrupt, MemoryError, BaseException])
def test_whatever_a_handler_raises_is_answered_and_logged(
    serve: Any, scripted: Any, caplog: pytest.LogCaptureFixture, failure: type[BaseException]
) -> None:
    """Even what is not meant to be caught: the client is not left without a reply."""
    server = serve(scripted)

    def fail(image: bytes) -> Any:
        raise failure(image)

    scripted._outcome = fail
    client = server.client()
    for _ in range(2):
        with pytest.raises(inference.InternalError) as caught:
            client.infer_batch(Params("u", b"x"))
        assert caught.value.error_id in caplog.text
    client.ping()
    client.close()


@pytest.mark.parametrize("undeclared", [inference.InvalidImage("m", "u"), TApplicationException(5)])
def test_an_exception_that_the_method_does_not_declare_is_answered(
    serve: Any, scripted: Any, undeclared: Exception
) -> None:
    server = serve(scripted)

    def fail() -> Any:
        raise undeclared

    scripted.info = fail
    client = server.client()
    with pytest.raises(TApplicationException):
        client.server_info()
    client.ping()
    client.close()


def test_a_failure_in_a_method_that_declares_none_is_an_application_exception(
    serve: Any, scripted: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(scripted)
    scripted.info = None
    client = server.client()
    with pytest.raises(TApplicationException, match=r"error_id: [0-9a-f]{12}") as caught:
        client.server_info()
    assert caught.value.type == TApplicationException.INTERNAL_ERROR
    assert str(caught.value)[-12:] in caplog.text
    client.ping()
    client.close()


def test_a_reply_that_cannot_be_encoded_is_an_internal_error(serve: Any, scripted: Any) -> None:
    """The half-written reply does not leak into the next one."""
    server = serve(scripted)
    info = scripted.info()
    scripted.info = lambda: type(info)(**{**vars(info), "settings": {"lock": object()}})
    client = server.client()
    with pytest.raises(TApplicationException, match="error_id"):
        client.server_info()
    client.ping()
    client.close()


def test_concurrent_connections_get_their_own_answers(serve: Any, scripted: Any) -> None:
    server = serve(scripted)
    wrong: list[str] = []

    def call(best: int) -> None:
        client = server.client(framed=best % 2 == 0)
        for _ in range(50):
            result = client.infer_batch(Params("u", f"best={best}".encode()))
            if result.label != f"class_{best}":
                wrong.append(result.label)
        client.close()

    threads = [threading.Thread(target=call, args=(n % 5,)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_slow_call_does_not_hold_up_other_connections(
    scripted_server: Any, scripted: Any
) -> None:
    slow, other = scripted_server.client(), scripted_server.client()
    thread = threading.Thread(target=slow.infer_batch, args=(Params("u", b"wait"),))
    thread.start()
    assert scripted.entered.acquire(timeout=30)
    assert other.infer_batch(Params("u", b"x")).label == "class_0"
    scripted.release.set()
    thread.join()
    slow.close()
    other.close()
