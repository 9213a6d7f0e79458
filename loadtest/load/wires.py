"""How requests travel: Thrift as the service has it, or HTTP as peers have it.

An HTTP client here is as cheap as the Thrift one: a request's bytes are made once for each image,
sent by one call, and of the reply nothing is read but its status, its length and its body.
"""

from __future__ import annotations

import base64
import json
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from loadtest.load.rpc import open_client

THRIFT = "thrift"
_HEAD_END = b"\r\n\r\n"
_LONGEST_HEAD_BYTES = 64 * 1024
_RECEIVE_BYTES = 64 * 1024
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)
_SHOWN_BYTES = 200


class RefusedError(Exception):
    """The server answered, and not with a result; the connection can be used again."""


@dataclass(frozen=True)
class Answer:
    """What a reply says of one image; the attributes are those of the IDL's InferenceResult."""

    label: str
    score: float
    error: None = None


@dataclass(frozen=True)
class HttpWire:
    """One way to ask by HTTP.

    Attributes:
        encode: makes the headers of its own, as bytes, and the body, of an image.
        decode: makes the answer of the body's JSON.
        path: where requests go.
    """

    encode: Callable[[bytes], tuple[bytes, bytes]]
    decode: Callable[[Any], Answer]
    path: bytes = b"/"

    def request(self, image: bytes) -> bytes:
        """All bytes of a request."""
        headers, body = self.encode(image)
        length = b"Content-Length: %d" % len(body)
        lines = (b"POST %s HTTP/1.1" % self.path, b"Host: localhost", headers, length)
        return b"\r\n".join(lines) + _HEAD_END + body


def _image(image: bytes) -> tuple[bytes, bytes]:
    return b"Content-Type: image/jpeg", image


def _in_object(image: bytes) -> tuple[bytes, bytes]:
    return _in_json({"image": _text(image)})


def _in_list(image: bytes) -> tuple[bytes, bytes]:
    return _in_json([_text(image)])


def _text(image: bytes) -> str:
    return base64.b64encode(image).decode("ascii")


def _in_json(document: object) -> tuple[bytes, bytes]:
    return b"Content-Type: application/json", json.dumps(document).encode("ascii")


def _as_tensor(image: bytes) -> tuple[bytes, bytes]:
    """KServe's protocol with Triton's binary extension: one element of BYTES with its length."""
    data = len(image).to_bytes(4, "little") + image
    tensor = {
        "name": "image",
        "datatype": "BYTES",
        "shape": [1, 1],
        "parameters": {"binary_data_size": len(data)},
    }
    head = json.dumps({"inputs": [tensor]}).encode("ascii")
    headers = b"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: %d"
    return headers % len(head), head + data


def _from_tensors(document: Any) -> Answer:
    found = {tensor["name"]: tensor["data"][0] for tensor in document["outputs"]}
    return Answer(found["label"], found["score"])


def _from_list(document: Any) -> Answer:
    return _from_object(document[0])


def _from_object(document: Any) -> Answer:
    return Answer(document["label"], document["score"])


_HTTP_WIRES = {
    "http": HttpWire(_image, _from_object),
    "http-base64": HttpWire(_in_object, _from_object),
    "http-list": HttpWire(_in_list, _from_list),
    "mosec": HttpWire(_image, _from_object, b"/inference"),
    "triton": HttpWire(_as_tensor, _from_tensors, b"/v2/models/classifier/infer"),
}
WIRES = (THRIFT, *_HTTP_WIRES)


class HttpClient:
    """A connection with one request in flight, with the methods of a Thrift client that loads use.

    Args:
        wire: how it asks.
        host: where the server is.
        port: its port.
        timeout_s: longest wait for a part of a reply.

    Raises:
        OSError: nothing accepts connections there.
    """

    def __init__(self, wire: HttpWire, host: str, port: int, timeout_s: float) -> None:
        self._decode = wire.decode
        self._socket = socket.create_connection((host, port), timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def infer_batch(self, request: bytes) -> Answer:
        """Send the bytes of a request and read the answer.

        Raises:
            RefusedError: the status is another one than 200.
            OSError, EOFError, ValueError, LookupError, TypeError: the connection is lost, or the
                reply is none of this wire; the connection must not be used again.
        """
        self._socket.sendall(request)
        received = bytearray()
        while (end := received.find(_HEAD_END)) < 0:
            if len(received) > _LONGEST_HEAD_BYTES:
                raise ValueError("the reply's head has no end")
            received += self._receive()
        head, rest = bytes(received[:end]), received[end + len(_HEAD_END) :]
        if (length := _LENGTH.search(head)) is not None:
            body = self._read(rest, int(length[1]))
        elif _CHUNKED.search(head):
            body = self._read_chunks(rest)
        else:
            raise ValueError(f"the reply does not tell its length: {head[:_SHOWN_BYTES]!r}")
        status = head.split(b" ", 2)[1]
        if status != b"200":
            text = body[:_SHOWN_BYTES].decode("utf-8", "replace")
            raise RefusedError(f"HTTP {status.decode('ascii')}: {text}")
        return self._decode(json.loads(body))

    def _read(self, rest: bytearray, size: int) -> bytes:
        """Take so many bytes from what has come, and wait for what has not."""
        while len(rest) < size:
            rest += self._receive()
        taken = bytes(rest[:size])
        del rest[:size]
        return taken

    def _read_chunks(self, rest: bytearray) -> bytes:
        body = b""
        while True:
            while (end := rest.find(b"\r\n")) < 0:
                rest += self._receive()
            size = int(self._read(rest, end + 2).partition(b";")[0], 16)
            body += self._read(rest, size + 2)[:size]
            if not size:
                return body

    def _receive(self) -> bytes:
        if not (data := self._socket.recv(_RECEIVE_BYTES)):
            raise EOFError("the server closed the connection")
        return data

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def opener(wire: str) -> Callable[[str, int, float], Any]:
    """What opens a connection of a wire: called with host, port and timeout in seconds."""
    if wire == THRIFT:
        return open_client
    return partial(HttpClient, _HTTP_WIRES[wire])


def http_request(wire: str, image: bytes) -> bytes:
    """The bytes of a request that carries an image, for a wire of HTTP."""
    return _HTTP_WIRES[wire].request(image)
