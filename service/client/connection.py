"""One connection to a server, with one call in flight at most.

A call that does not end with its own complete reply leaves the connection unsound, whatever the
reason, and is not used again: so a late reply reaches no other call.
"""

from __future__ import annotations

import itertools
import select
import socket
import ssl
import time
from dataclasses import dataclass
from struct import Struct
from typing import Any

from thriftpy2.protocol import TCyBinaryProtocol
from thriftpy2.thrift import TApplicationException, TMessageType
from thriftpy2.transport import TCyMemoryBuffer

from idl import inference
from service.client.deadline import CallDeadline
from service.client.errors import (
    ConnectionFailedError,
    InvalidReplyError,
    InvalidRequestError,
    RefusedCallError,
)
from service.wire.scanner import LimitError, MessageLimits, MessageScanner, ProtocolError

_FRAME_HEADER = Struct(">i")
_INITIAL_BUFFER_BYTES = 16 * 1024
_GROWTH_BYTES = 256 * 1024
# The service sends up to 100,000 classes in a reply, and each of them is four values.
_MAX_REPLY_VALUES = 1_000_000
_MAX_SEQUENCE_ID = 2**31 - 1

# Of all connections together, so that no two calls in flight have the same.
_sequence_ids = itertools.count(1)

# The library's annotations cover its pure Python twin only.
_BinaryProtocol: Any = TCyBinaryProtocol


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


class ClientConnection:
    """A connection that stands.

    Args:
        endpoint: the server.
        deadline: of the call that needs it.

    Attributes:
        sound: whether the next call may use it.
        idle_since_s: time.monotonic() of the end of the last call.

    Raises:
        ConnectionFailedError: no server listens, or the two cannot agree on TLS.
        DeadlineExceededError: the call's time was over first.
    """

    def __init__(self, endpoint: Endpoint, deadline: CallDeadline) -> None:
        self._endpoint = endpoint
        self._address = endpoint.address
        self.sound = False
        self.idle_since_s = time.monotonic()
        self._limits = MessageLimits(frame_bytes=endpoint.max_reply_bytes, values=_MAX_REPLY_VALUES)
        self._socket = _connect(endpoint, deadline)

    def call(self, method: str, arguments: dict[str, Any], deadline: CallDeadline) -> Any:
        """Make a call.

        Args:
            method: its name in the IDL.
            arguments: by their names in the IDL.
            deadline: when the reply has to be complete.

        Returns:
            The result's struct, with the method's success or one of its declared exceptions.

        Raises:
            ClientError: there is no such struct.
        """
        self.sound = False
        sequence_id = next(_sequence_ids) % _MAX_SEQUENCE_ID
        self._send(self._encode(method, arguments, sequence_id), deadline)
        scanner, body = self._receive(deadline)
        result = self._decode(scanner, body, method, sequence_id)
        self.idle_since_s = time.monotonic()
        # After refusing a message for its size, a server closes the connection.
        self.sound = getattr(result, "invalid_request", None) is None
        return result

    def usable(self) -> bool:
        """Whether it is sound, still open, and silent: nothing may come that was not asked for."""
        if not self.sound:
            return False
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Close the socket; nothing more is said on it."""
        self.sound = False
        self._socket.close()

    def _encode(self, method: str, arguments: dict[str, Any], sequence_id: int) -> bytes:
        struct = getattr(inference.InferenceService, f"{method}_args")(**arguments)
        buffer = TCyMemoryBuffer()
        encoder = _BinaryProtocol(buffer)
        encoder.write_message_begin(method, TMessageType.CALL, sequence_id)
        encoder.write_struct(struct)
        message: bytes = buffer.getvalue()
        if len(message) > self._endpoint.max_request_bytes:
            # Nothing was sent.
            self.sound = True
            raise InvalidRequestError(
                f"{self._address}: the call has {len(message)} bytes, max_request_bytes allows "
                f"{self._endpoint.max_request_bytes}; send fewer images at a time"
            )
        return _FRAME_HEADER.pack(len(message)) + message if self._endpoint.framed else message

    def _send(self, message: bytes, deadline: CallDeadline) -> None:
        rest = memoryview(message)
        try:
            while rest:
                self._socket.settimeout(deadline.check("while it was sent"))
                rest = rest[self._socket.send(rest) :]
        except TimeoutError:
            raise deadline.exceeded("while it was sent") from None
        except OSError as error:
            raise self._broken(f"while the call was sent: {_reason(error)}") from error

    def _receive(self, deadline: CallDeadline) -> tuple[MessageScanner, memoryview]:
        """One message: its scanner, and the bytes of its body."""
        scanner = MessageScanner(self._limits)
        buffer = memoryview(bytearray(_INITIAL_BUFFER_BYTES))
        start = _FRAME_HEADER.size if self._endpoint.framed else 0
        arrived, frame_bytes = 0, 0
        needed = max(start, 1)
        while True:
            while arrived < needed:
                if arrived == len(buffer):
                    # Memory grows with the bytes that came, not with the lengths they announce.
                    room = arrived + max(arrived, _GROWTH_BYTES)
                    larger = memoryview(bytearray(min(needed, room) if start else room))
                    larger[:arrived] = buffer
                    buffer = larger
                arrived += self._receive_into(buffer[arrived:], arrived, deadline)
            if start and not frame_bytes:
                frame_bytes = self._frame_bytes(buffer)
                scanner.reset(frame_bytes)
                needed = start + frame_bytes
                continue
            view = buffer[start:arrived]
            needed = start + self._scan(scanner, view)
            if scanner.end:
                break
        if arrived != needed or (start and scanner.end != frame_bytes):
            raise self._invalid(f"{arrived} bytes came, the reply has {needed}")
        return scanner, view[scanner.body_start : scanner.end]

    def _receive_into(self, view: memoryview, arrived: int, deadline: CallDeadline) -> int:
        waiting_for = "while it waited for the reply"
        try:
            self._socket.settimeout(deadline.check(waiting_for))
            received = self._socket.recv_into(view)
        except TimeoutError:
            raise deadline.exceeded(waiting_for) from None
        except OSError as error:
            raise self._broken(f"before the reply was complete: {_reason(error)}") from error
        if received == 0:
            raise self._broken(f"after {arrived} bytes of the reply: the server closed it")
        return received

    def _frame_bytes(self, buffer: memoryview) -> int:
        frame_bytes: int = _FRAME_HEADER.unpack_from(buffer)[0]
        if not 0 < frame_bytes <= self._endpoint.max_reply_bytes:
            raise self._invalid(
                f"a reply of {frame_bytes} bytes was announced, max_reply_bytes allows "
                f"{self._endpoint.max_reply_bytes}"
            )
        return frame_bytes

    def _scan(self, scanner: MessageScanner, view: memoryview) -> int:
        try:
            return scanner.scan(view)
        except LimitError as error:
            raise self._invalid(
                f"the reply passes a limit: {self._endpoint.max_reply_bytes} bytes "
                f"(max_reply_bytes), {_MAX_REPLY_VALUES} values"
            ) from error
        except ProtocolError as error:
            raise self._invalid(f"the reply is no Thrift message: {error}") from error

    def _decode(
        self, scanner: MessageScanner, body: memoryview, method: str, sequence_id: int
    ) -> Any:
        came = (scanner.name, scanner.sequence_id)
        own = (method.encode(), sequence_id)
        if scanner.message_type == TMessageType.EXCEPTION:
            refusal = self._read(TApplicationException(), body)
            # A server that could not read the call far enough does not know these two.
            if came[0] in (own[0], b"") and came[1] in (own[1], 0):
                raise RefusedCallError(f"{self._address}: {method} was refused: {refusal.message}")
        if scanner.message_type not in (TMessageType.REPLY, TMessageType.EXCEPTION) or came != own:
            name = scanner.name.decode("utf-8", "replace")
            raise self._invalid(
                f"a message of type {scanner.message_type} for {name!r}, sequence id "
                f"{scanner.sequence_id} came, the reply to {method!r}, {sequence_id} was due"
            )
        return self._read(getattr(inference.InferenceService, f"{method}_result")(), body)

    def _read(self, struct: Any, body: memoryview) -> Any:
        buffer = TCyMemoryBuffer()
        buffer.write(body)
        try:
            _BinaryProtocol(buffer, strict_decode=True).read_struct(struct)
        except Exception as error:
            raise self._invalid(f"the reply cannot be decoded: {error}") from error
        return struct

    def _broken(self, text: str) -> ConnectionFailedError:
        return ConnectionFailedError(f"{self._address}: the connection broke {text}")

    def _invalid(self, text: str) -> InvalidReplyError:
        return InvalidReplyError(f"{self._address}: {text}")


def _connect(endpoint: Endpoint, deadline: CallDeadline) -> socket.socket:
    """A socket to the first of the host's addresses that answers, with TLS where that is wanted."""
    until_s = time.monotonic() + min(endpoint.connect_timeout_s, deadline.remaining_s)
    what = f"{endpoint.address}: cannot connect"
    try:
        addresses = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConnectionFailedError(f"{what}: {_reason(error)}") from error
    errors: list[OSError] = []
    for family, kind, protocol, _, address in addresses:
        deadline.check("while it connected")
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(max(0.001, until_s - time.monotonic()))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if endpoint.tls is None:
                return sock
            sock.settimeout(max(0.001, until_s - time.monotonic()))
            return endpoint.tls.wrap_socket(sock, server_hostname=endpoint.tls_server_name)
        except OSError as error:
            sock.close()
            errors.append(error)
        except BaseException:
            sock.close()
            raise
    deadline.check("while it connected")
    if all(isinstance(error, ConnectionRefusedError) for error in errors):
        raise ConnectionFailedError(
            f"{what}: no server listens there; is it running?", refused=True
        )
    last = errors[-1]
    if isinstance(last, TimeoutError):
        raise ConnectionFailedError(
            f"{what} within connect_timeout_s = {endpoint.connect_timeout_s:g}"
        )
    raise ConnectionFailedError(f"{what}: {_reason(last)}") from last


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not accepted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({(error.reason or 'unknown').lower().replace('_', ' ')})"
    return getattr(error, "strerror", None) or str(error)
