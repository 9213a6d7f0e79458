"""One call and its reply as bytes, for connections of any kind: nothing here knows a socket.

A reply is taken only if it is complete, and carries the call's own name and sequence id.
"""

from __future__ import annotations

import itertools
import ssl
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from struct import Struct
from typing import Any

from thriftpy2.thrift import TApplicationException, TMessageType
from thriftpy2.transport import TCyMemoryBuffer

from idl import inference
from interfaces.service import number_of_classes
from service.client.errors import (
    CallTooLargeError,
    ConnectionFailedError,
    InvalidReplyError,
    RefusedCallError,
)
from service.wire.binary_protocol import BinaryProtocol
from service.wire.scanner import LimitError, MessageLimits, MessageScanner, ProtocolError

WAITING_FOR_REPLY = "while it waited for the reply"
"""What a deadline that passes there ran out on."""

_FRAME_HEADER = Struct(">i")
_INITIAL_BUFFER_BYTES = 16 * 1024
_GROWTH_BYTES = 256 * 1024
# The service sends up to 100,000 classes in a reply, and each of them is four values.
_MAX_REPLY_VALUES = 1_000_000
_MAX_SEQUENCE_ID = 2**31 - 1

# Of all connections together, so that no two calls in flight have the same.
_sequence_ids = itertools.count(1)


@dataclass(frozen=True)
class Endpoint:
    """A server, and how to talk to it.

    Attributes:
        host: its name or address.
        port: its port.
        framed: whether messages go in frames.
        connect_timeout_s: longest time until a connection stands, TLS handshake included.
        max_request_bytes: size of the largest call.
        max_reply_bytes: size of the largest reply.
        tls: None for plain connections.
        tls_server_name: the name that the server's certificate must have.
    """

    host: str
    port: int
    framed: bool
    connect_timeout_s: float
    max_request_bytes: int
    max_reply_bytes: int
    tls: ssl.SSLContext | None
    tls_server_name: str

    @property
    def address(self) -> str:
        """Host and port, for messages."""
        return f"{self.host}:{self.port}"

    def broken(self, text: str, arrived_bytes: int) -> ConnectionFailedError:
        """The error of a connection that broke, which `text` tells the rest of.

        Args:
            text: when, and why.
            arrived_bytes: how much of the reply had come.
        """
        message = f"{self.address}: the connection broke {text}"
        return ConnectionFailedError(message, unanswered=not arrived_bytes)

    def lost(self, exchange: Exchange, error: Exception | None = None) -> ConnectionFailedError:
        """The error of a connection that ended before the reply was complete.

        Args:
            exchange: the call.
            error: why; where it is no OSError, the server has closed the connection.
        """
        told = f"after {exchange.arrived} bytes of the reply: the server closed it"
        if isinstance(error, OSError):
            told = f"before the reply was complete: {reason_of(error)}"
        return self.broken(told, exchange.arrived)

    def unreachable(self, errors: list[OSError]) -> ConnectionFailedError:
        """The error of a connection that did not come to be.

        Args:
            errors: one for each address that was tried.
        """
        what = f"{self.address}: cannot connect"
        if errors and all(isinstance(error, ConnectionRefusedError) for error in errors):
            return ConnectionFailedError(
                f"{what}: no server listens there; is it running?", refused=True
            )
        if not errors or isinstance(errors[-1], TimeoutError):
            return ConnectionFailedError(
                f"{what} within connect_timeout_s = {self.connect_timeout_s:g}"
            )
        return ConnectionFailedError(f"{what}: {reason_of(errors[-1])}")

    def unknown(self, error: OSError | UnicodeError) -> ConnectionFailedError:
        """The error of a name that has no address."""
        return ConnectionFailedError(f"{self.address}: cannot connect: {reason_of(error)}")


class Exchange:
    """A call that is on its way, and its reply.

    Args:
        endpoint: the server.
        method: its name in the IDL.
        arguments: by their names in the IDL.

    Attributes:
        request: what is to be sent.
        arrived: how many bytes of the reply are there.
        is_complete: whether all of them are.

    Raises:
        CallTooLargeError: nothing can be sent.
    """

    def __init__(self, endpoint: Endpoint, method: str, arguments: dict[str, Any]) -> None:
        self._endpoint = endpoint
        self._method = method
        self._sequence_id = next(_sequence_ids) % _MAX_SEQUENCE_ID
        self.request = self._encode(arguments)
        self._scanner = MessageScanner(
            MessageLimits(frame_bytes=endpoint.max_reply_bytes, values=_MAX_REPLY_VALUES)
        )
        self._buffer = memoryview(bytearray(_INITIAL_BUFFER_BYTES))
        self._start = _FRAME_HEADER.size if endpoint.framed else 0
        self._frame_bytes = 0
        self._needed = max(self._start, 1)
        self.arrived = 0
        self.is_complete = False

    def space(self) -> memoryview:
        """Where the next bytes of the reply go; never empty until the reply is complete."""
        if self.arrived == len(self._buffer):
            # Memory grows with the bytes that came, not with the lengths they announce.
            room = self.arrived + max(self.arrived, _GROWTH_BYTES)
            larger = memoryview(bytearray(min(self._needed, room) if self._start else room))
            larger[: self.arrived] = self._buffer
            self._buffer = larger
        return self._buffer[self.arrived :]

    def received(self, count: int) -> bool:
        """Take note that so many bytes were written into `space()`; whether the reply is complete.

        Raises:
            InvalidReplyError: they are no acceptable reply.
        """
        self.arrived += count
        while self.arrived >= self._needed:
            if self._start and not self._frame_bytes:
                self._frame_bytes = self._announced()
                self._scanner.reset(self._frame_bytes)
                self._needed = self._start + self._frame_bytes
                continue
            self._needed = self._start + self._scan(self._buffer[self._start : self.arrived])
            if end := self._scanner.end:
                if self.arrived != self._needed or (self._start and end != self._frame_bytes):
                    raise self._invalid(f"{self.arrived} bytes came, the reply has {self._needed}")
                self.is_complete = True
                return True
        return False

    def result(self) -> Any:
        """The result's struct, with the method's success or one of its declared exceptions.

        Raises:
            RefusedCallError: the server does not take the call.
            InvalidReplyError: this is no reply to the call.
        """
        scanner, method = self._scanner, self._method
        body = self._buffer[self._start + scanner.body_start : self._start + scanner.end]
        came = (scanner.name, scanner.sequence_id)
        own = (method.encode(), self._sequence_id)
        if scanner.message_type == TMessageType.EXCEPTION:
            refusal = self._read(TApplicationException(), body)
            # A server that could not read the call far enough does not know these two.
            if came[0] in (own[0], b"") and came[1] in (own[1], 0):
                raise RefusedCallError(f"{self._endpoint.address}: {method} was refused: {refusal}")
        if scanner.message_type not in (TMessageType.REPLY, TMessageType.EXCEPTION) or came != own:
            name = scanner.name.decode("utf-8", "replace")
            raise self._invalid(
                f"a message of type {scanner.message_type} for {name!r}, sequence id "
                f"{scanner.sequence_id} came, the reply to {method!r}, {own[1]} was due"
            )
        return self._read(getattr(inference.InferenceService, f"{method}_result")(), body)

    def _encode(self, arguments: dict[str, Any]) -> bytes:
        struct = getattr(inference.InferenceService, f"{self._method}_args")(**arguments)
        buffer = TCyMemoryBuffer()
        encoder = BinaryProtocol(buffer)
        encoder.write_message_begin(self._method, TMessageType.CALL, self._sequence_id)
        encoder.write_struct(struct)
        message: bytes = buffer.getvalue()
        if len(message) > self._endpoint.max_request_bytes:
            raise CallTooLargeError(
                f"{self._endpoint.address}: the call has {len(message)} bytes, max_request_bytes "
                f"allows {self._endpoint.max_request_bytes}; send fewer images at a time"
            )
        return _FRAME_HEADER.pack(len(message)) + message if self._endpoint.framed else message

    def _announced(self) -> int:
        frame_bytes: int = _FRAME_HEADER.unpack_from(self._buffer)[0]
        if not 0 < frame_bytes <= self._endpoint.max_reply_bytes:
            raise self._invalid(
                f"a reply of {frame_bytes} bytes was announced, max_reply_bytes allows "
                f"{self._endpoint.max_reply_bytes}"
            )
        return frame_bytes

    def _scan(self, view: memoryview) -> int:
        try:
            return self._scanner.scan(view)
        except LimitError as error:
            raise self._invalid(
                f"the reply passes a limit: {self._endpoint.max_reply_bytes} bytes "
                f"(max_reply_bytes), {_MAX_REPLY_VALUES} values"
            ) from error
        except ProtocolError as error:
            raise self._invalid(f"the reply is no Thrift message: {error}") from error

    def _read(self, struct: Any, body: memoryview) -> Any:
        buffer = TCyMemoryBuffer()
        buffer.write(body)
        try:
            BinaryProtocol(buffer, strict_decode=True).read_struct(struct)
        except Exception as error:
            raise self._invalid(f"the reply cannot be decoded: {error}") from error
        return struct

    def _invalid(self, text: str) -> InvalidReplyError:
        return InvalidReplyError(f"{self._endpoint.address}: {text}")


class ConnectionState(ABC):
    """What a connection knows of itself between calls.

    Args:
        endpoint: the server.

    Attributes:
        sound: whether the next call may use it: each one has ended with its own complete reply.
        idle_since_s: time.monotonic() of the end of the last call.
        classes: how many the server has, which does not change within a connection; None until a
            reply of server_info has said it.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.sound = True
        self.idle_since_s = time.monotonic()
        self.classes: int | None = None

    @abstractmethod
    def usable(self) -> bool:
        """Whether it is sound, still open, and silent: nothing may come that was not asked for."""

    @abstractmethod
    def close(self) -> None:
        """Close the socket at once; nothing more is said on it."""

    def begun(self, method: str, arguments: dict[str, Any]) -> Exchange:
        """A call that is sent next; the connection is unsound until it has ended.

        Raises:
            CallTooLargeError: nothing can be sent.
        """
        exchange = Exchange(self._endpoint, method, arguments)
        self.sound = False
        return exchange

    def ended(self, exchange: Exchange) -> Any:
        """The result of the call that this exchange was.

        Raises:
            ClientError: see `Exchange.result`.
        """
        result = exchange.result()
        self.idle_since_s = time.monotonic()
        # After refusing a message for its size, a server closes the connection.
        self.sound = getattr(result, "invalid_request", None) is None
        success = getattr(result, "success", None)
        if isinstance(success, inference.ServerInfo):
            self.classes = number_of_classes(success.settings or {})
        return result


def reason_of(error: OSError | UnicodeError) -> str:
    """What went wrong with a connection, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not accepted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({(error.reason or 'unknown').lower().replace('_', ' ')})"
    return getattr(error, "strerror", None) or str(error)
