"""Thrift's strict binary protocol by hand: calls as bytes to mutate or to send many times.

The service's own encoder is left out on purpose, so that a mistake there cannot hide itself here.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any

CALL, REPLY, EXCEPTION = 1, 2, 3

_STOP, _BOOL, _I8, _DOUBLE, _I16, _I32, _I64 = 0, 2, 3, 4, 6, 8, 10
_STRING, _STRUCT, _MAP, _SET, _LIST = 11, 12, 13, 14, 15
_FRAME = Struct(">I")
_INT = Struct(">i")
_FIELD = Struct(">Bh")
_FIXED = {
    _BOOL: Struct(">?"),
    _I8: Struct(">b"),
    _DOUBLE: Struct(">d"),
    _I16: Struct(">h"),
    _I32: _INT,
    _I64: Struct(">q"),
}
_REPLY_STARTS = (b"\x80\x01\x00\x02", b"\x80\x01\x00\x03")
_RECEIVE_BYTES = 64 * 1024


class WireError(Exception):
    """A reply that is no Thrift message."""


class IncompleteError(WireError):
    """A reply of which a part has not arrived."""


@dataclass(frozen=True)
class Reply:
    """One decoded reply.

    Attributes:
        message_type: REPLY or EXCEPTION.
        name: the method.
        sequence_id: that of the call.
        fields: the result struct by field number; 0 is what the method returned, others are
            declared exceptions. For EXCEPTION those of TApplicationException.
        size: bytes of the message.
    """

    message_type: int
    name: bytes
    sequence_id: int
    fields: dict[int, Any]
    size: int


def frame(message: bytes) -> bytes:
    """A message with its length before it, as framed transports send it."""
    return _FRAME.pack(len(message)) + message


def call(name: bytes, sequence_id: int, arguments: bytes = b"") -> bytes:
    """An unframed call; `arguments` are the fields of its struct without the stop byte."""
    head = b"\x80\x01\x00\x01" + _string(name) + _INT.pack(sequence_id)
    return head + arguments + b"\x00"


def infer_batch(sequence_id: int, uuid: bytes, data: bytes) -> bytes:
    """A call for one image."""
    return call(b"infer_batch", sequence_id, _FIELD.pack(_STRUCT, 1) + _params(uuid, data))


def infer_images(
    sequence_id: int,
    images: Sequence[tuple[bytes, bytes]],
    *,
    top_k: int | None = None,
    timeout_ms: int | None = None,
) -> bytes:
    """A call for several images, each a uuid and its data."""
    arguments = _FIELD.pack(_LIST, 1) + bytes([_STRUCT]) + _INT.pack(len(images))
    arguments += b"".join(_params(uuid, data) for uuid, data in images)
    options = b""
    for number, value in ((1, top_k), (2, timeout_ms)):
        if value is not None:
            options += _FIELD.pack(_I32, number) + _INT.pack(value)
    if options:
        arguments += _FIELD.pack(_STRUCT, 2) + options + b"\x00"
    return call(b"infer_images", sequence_id, arguments)


def _params(uuid: bytes, data: bytes) -> bytes:
    head = _FIELD.pack(_STRING, 1) + _string(uuid) + _FIELD.pack(_STRING, 2)
    return head + _string(data) + b"\x00"


def _string(data: bytes) -> bytes:
    return _INT.pack(len(data)) + data


def decode(data: bytes) -> Reply:
    """The reply at the start of `data`, without a frame.

    Raises:
        IncompleteError: it goes on behind the end of `data`.
        WireError: it is no reply.
    """
    if data[:4] not in _REPLY_STARTS:
        if len(data) < 4:
            raise IncompleteError("the reply's first bytes are missing")
        raise WireError(f"the reply starts with {data[:4]!r}")
    try:
        name, position = _read_string(data, 4)
        sequence_id = _INT.unpack_from(data, position)[0]
        fields, position = _read_struct(data, position + 4)
    except (struct.error, IndexError):
        raise IncompleteError(f"{len(data)} bytes are not the whole reply") from None
    return Reply(data[3], name, sequence_id, fields, position)


def _read_string(data: bytes, position: int) -> tuple[bytes, int]:
    end = position + 4 + int(_INT.unpack_from(data, position)[0])
    if end > len(data):
        raise IndexError
    return data[position + 4 : end], end


def _read_struct(data: bytes, position: int) -> tuple[dict[int, Any], int]:
    fields: dict[int, Any] = {}
    while (kind := data[position]) != _STOP:
        _, number = _FIELD.unpack_from(data, position)
        fields[number], position = _read_value(data, position + 3, kind)
    return fields, position + 1


def _read_value(data: bytes, position: int, kind: int) -> tuple[Any, int]:
    if kind in _FIXED:
        packed = _FIXED[kind]
        return packed.unpack_from(data, position)[0], position + packed.size
    if kind == _STRING:
        return _read_string(data, position)
    if kind == _STRUCT:
        return _read_struct(data, position)
    if kind in (_LIST, _SET):
        element, count = data[position], _INT.unpack_from(data, position + 1)[0]
        position += 5
        values = []
        for _ in range(count):
            value, position = _read_value(data, position, element)
            values.append(value)
        return values, position
    if kind == _MAP:
        keys, element = data[position], data[position + 1]
        count = _INT.unpack_from(data, position + 2)[0]
        position += 6
        pairs = {}
        for _ in range(count):
            key, position = _read_value(data, position, keys)
            pairs[key], position = _read_value(data, position, element)
        return pairs, position
    raise WireError(f"the reply has a value of the unknown type {kind}")


def connect(port: int, timeout_s: float) -> socket.socket:
    """A connection to the server on 127.0.0.1, every operation of which ends in `timeout_s`."""
    sock = socket.create_connection(("127.0.0.1", port), timeout_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def receive(sock: socket.socket, *, framed: bool) -> Reply:
    """Wait for one reply, which must be all that has arrived.

    Raises:
        EOFError: the server closed the connection.
        WireError: what came is no reply, or more than one.
        OSError: the connection broke, or its time is over.
    """
    data = b""
    while True:
        chunk = sock.recv(_RECEIVE_BYTES)
        if not chunk:
            raise EOFError(f"the server closed the connection after {len(data)} bytes of a reply")
        data += chunk
        if framed:
            if len(data) < 4 or len(data) < 4 + _FRAME.unpack_from(data)[0]:
                continue
            data = data[4:]
        try:
            reply = decode(data)
        except IncompleteError:
            if framed:
                raise
            continue
        if reply.size != len(data):
            raise WireError(f"{len(data) - reply.size} bytes follow the reply")
        return reply


def exchange(port: int, message: bytes, timeout_s: float, *, framed: bool = True) -> Reply:
    """One call on a connection of its own. Raises what `receive` does."""
    with connect(port, timeout_s) as sock:
        sock.sendall(frame(message) if framed else message)
        return receive(sock, framed=framed)
