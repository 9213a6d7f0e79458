"""The way from a front end to a replica: connections that carry a call, or several, at a time.

Messages are those of the IDL, framed. Images are sent from where the client's message has put them,
without a copy (`sendmsg`).
"""

from __future__ import annotations

import contextlib
import itertools
import math
import select
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

from thriftpy2.protocol import TCyBinaryProtocol
from thriftpy2.thrift import TApplicationException, TMessageType
from thriftpy2.transport import TCyMemoryBuffer

from idl import inference
from service.wire.peer import Peer

# The library's annotations cover its pure Python twin only.
_BinaryProtocol: Any = TCyBinaryProtocol

_Bytes = bytes | bytearray | memoryview

_LENGTH = struct.Struct(">I")
_CALL, _REPLY, _EXCEPTION = (
    b"\x80\x01\x00" + bytes([kind])
    for kind in (TMessageType.CALL, TMessageType.REPLY, TMessageType.EXCEPTION)
)
_BUFFER_BYTES = 16 * 1024
_MOST_AT_ONCE_BYTES = 64 * 1024
_CONNECT_S = 1.0
# A replica that takes nothing of a call for so long hangs.
_SEND_S = 10
# Of a node that is gone without a word: how soon a connection to it breaks.
_SILENCE_BEFORE_PROBES_S, _BETWEEN_PROBES_S, _PROBES = 5, 2, 3
_MOST_PIECES = 512
# The kernel's type has no room for more.
_LONGEST_POLL_MS = 2**31 - 1


class HopError(Exception):
    """A call has no reply.

    Attributes:
        had_begun: whether the replica may have begun with it.
    """

    def __init__(self, text: str, *, had_begun: bool) -> None:
        super().__init__(text)
        self.had_begun = had_begun


class StaleConnectionError(HopError):
    """A kept connection broke before any of a reply came: the replica had perhaps closed it."""


class HopTimeoutError(Exception):
    """The reply did not come in time."""


class ClientGoneError(Exception):
    """The client has closed its connection; the replica is told by the end of this one."""


class HopConnection:
    """A connection to a replica, for one call at a time, or for a message with several.

    Args:
        host: of the replica.
        port: of the replica.

    Attributes:
        is_sound: whether it can carry another call.

    Raises:
        HopError: it cannot be had.
    """

    def __init__(self, host: str, port: int) -> None:
        self.is_sound = True
        self._was_used = False
        try:
            sock = socket.create_connection((host, port), _CONNECT_S)
        except OSError as error:
            raise HopError(f"cannot connect: {error.strerror or error}", had_begun=False) from error
        self._socket = sock
        sock.settimeout(None)
        for level, name, value in (
            (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _SILENCE_BEFORE_PROBES_S),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _BETWEEN_PROBES_S),
            (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES),
            (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SEND_S * 1000),
        ):
            sock.setsockopt(level, name, value)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._sequence_ids = itertools.count(1)
        self._unfinished = b""
        # Whether no message was cut short.
        self._is_whole = True

    def call(
        self, method: str, arguments: Sequence[_Bytes], until_s: float, peer: Peer | None
    ) -> Any:
        """Make a call.

        Args:
            method: its name in the IDL.
            arguments: its encoded struct, in pieces.
            until_s: when to give up, on the monotonic clock.
            peer: the client that the call is for; None where there is none.

        Returns:
            The decoded result's struct.

        Raises:
            HopError: the connection broke.
            HopTimeoutError, ClientGoneError: as they say.
            TApplicationException: the replica does not take the call.
        """
        about = _about(method, next(self._sequence_ids) & 0x7FFFFFFF)
        had_begun = False
        try:
            self._send_call(about, arguments, until_s, peer)
            self._wait(until_s, peer)
            came = self._socket.recv_into(self._buffer)
            had_begun = came > 0
            reply = self._rest(came, until_s, peer)
        except (OSError, EOFError) as error:
            raise self.broken(error, had_begun=had_begun) from None
        self.all_came()
        return self._decoded(method, about, reply)

    def send(
        self,
        method: str,
        sequence_id: int,
        arguments: Sequence[_Bytes],
        until_s: float,
        peer: Peer | None,
    ) -> None:
        """Send a call; OSError where the connection breaks, and else what `call` raises."""
        self._send_call(_about(method, sequence_id), arguments, until_s, peer)

    def _send_call(
        self, about: bytes, arguments: Sequence[_Bytes], until_s: float, peer: Peer | None
    ) -> None:
        self.is_sound = False
        length = len(_CALL) + len(about) + sum(map(len, arguments))
        message = [_LENGTH.pack(length) + _CALL + about, *arguments]
        self._send(message, _LENGTH.size + length, until_s, peer)

    def all_came(self) -> None:
        """All replies have come: it can carry another call."""
        self._was_used = True
        self.is_sound = self._is_whole

    def fileno(self) -> int:
        """Its descriptor, for those that wait for it themselves."""
        return self._socket.fileno()

    def receive(self) -> list[memoryview]:
        """The replies that have come as a whole, once something has come.

        Raises:
            EOFError: the replica has closed the connection.
            OSError: it broke.
        """
        data = self._socket.recv(_MOST_AT_ONCE_BYTES)
        if not data:
            raise EOFError
        came = memoryview(self._unfinished + data if self._unfinished else data)
        replies = []
        while len(came) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(came)[0]
            if end > len(came):
                break
            replies.append(came[_LENGTH.size : end])
            came = came[end:]
        self._unfinished = bytes(came)
        return replies

    def tell(self, message: bytes) -> None:
        """Send a message that has no reply, if the kernel takes it at once."""
        with contextlib.suppress(OSError):
            sent = self._socket.send(message, socket.MSG_DONTWAIT)
            self._is_whole = self._is_whole and sent == len(message)

    def broken(self, error: Exception, *, had_begun: bool) -> HopError:
        """What to raise of a connection that broke.

        Args:
            error: OSError, or EOFError where it was closed.
            had_begun: whether something of a reply has come.
        """
        kind = StaleConnectionError if self._was_used and not had_begun else HopError
        text = getattr(error, "strerror", None) or str(error) or "it was closed"
        return kind(f"the connection broke: {text}", had_begun=True)

    def close(self) -> None:
        """Close it; may be repeated."""
        self._socket.close()

    def _send(
        self, pieces: list[_Bytes], total_bytes: int, until_s: float, peer: Peer | None
    ) -> None:
        sent = self._sent(pieces)
        while sent < total_bytes:
            if not sent:
                self._wait_for_room(until_s, peer)
            total_bytes -= sent
            gone = 0
            for piece in pieces:
                if sent < len(piece):
                    break
                sent -= len(piece)
                gone += 1
            del pieces[:gone]
            if sent:
                pieces[0] = memoryview(pieces[0])[sent:]
            sent = self._sent(pieces)

    def _sent(self, pieces: list[_Bytes]) -> int:
        """How many bytes of these the kernel takes at once."""
        try:
            return self._socket.sendmsg(pieces[:_MOST_PIECES], (), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    def _wait_for_room(self, until_s: float, peer: Peer | None) -> None:
        """Return once the kernel takes more; OSError where the replica reads nothing."""
        hangs_s = time.monotonic() + _SEND_S
        self._poll.modify(self._socket, select.POLLOUT)
        try:
            self._wait(min(until_s, hangs_s), peer)
        except HopTimeoutError:
            if until_s <= hangs_s:
                raise
            raise OSError(f"it reads nothing for {_SEND_S} s") from None
        finally:
            self._poll.modify(self._socket, select.POLLIN)

    def _wait(self, until_s: float, peer: Peer | None) -> None:
        """Return once something has come, or the connection has ended."""
        own = self._socket.fileno()
        other = -1 if peer is None else peer.fileno()
        if other >= 0:
            self._poll.register(other, select.POLLRDHUP)
        try:
            while True:
                ready = self._poll.poll(poll_timeout_ms(until_s))
                if any(fd == own for fd, _ in ready):
                    return
                if not ready:
                    raise HopTimeoutError
                if peer is not None and peer.is_disconnected():
                    raise ClientGoneError
                # It is this server that has ended its half, as it does when it drains.
                self._poll.unregister(other)
                other = -1
        finally:
            if other >= 0:
                self._poll.unregister(other)

    def _rest(self, came: int, until_s: float, peer: Peer | None) -> memoryview:
        """The whole reply without its length, of which `came` bytes are in the buffer."""
        if not came:
            raise EOFError
        into = self._buffer
        while came < _LENGTH.size:
            came += self._more(into[came:], until_s, peer)
        needed = _LENGTH.size + _LENGTH.unpack_from(into)[0]
        if needed > len(into):
            into = memoryview(bytearray(needed))
            into[:came] = self._buffer[:came]
        while came < needed:
            came += self._more(into[came:needed], until_s, peer)
        return into[_LENGTH.size : needed]

    def _more(self, into: memoryview, until_s: float, peer: Peer | None) -> int:
        self._wait(until_s, peer)
        count = self._socket.recv_into(into)
        if not count:
            raise EOFError
        return count

    def decoded(self, method: str, sequence_id: int, reply: memoryview) -> Any:
        """The struct of the result of that call.

        Raises:
            HopError: the reply is none to it.
            TApplicationException: the replica does not take the call.
        """
        return self._decoded(method, _about(method, sequence_id), reply)

    def _decoded(self, method: str, about: bytes, reply: memoryview) -> Any:
        start = len(_REPLY) + len(about)
        kind, told = bytes(reply[: len(_REPLY)]), reply[len(_REPLY) : start]
        if told != about or kind not in (_REPLY, _EXCEPTION):
            self.is_sound = False
            raise HopError(f"a reply came that is none to {method}", had_begun=True)
        source = TCyMemoryBuffer()
        source.write(reply[start:])
        if kind == _EXCEPTION:
            refusal = TApplicationException()
            _BinaryProtocol(source).read_struct(refusal)
            raise refusal
        result = getattr(inference.InferenceService, f"{method}_result")()
        _BinaryProtocol(source).read_struct(result)
        return result


def poll_timeout_ms(until_s: float) -> int | None:
    """What `select.poll` takes to wait until then, on the monotonic clock; None for no limit."""
    left_ms = (until_s - time.monotonic()) * 1000
    return None if left_ms > _LONGEST_POLL_MS else max(0, math.ceil(left_ms))


def sequence_id_of(reply: memoryview) -> int:
    """The number of the call that a reply is to; -1 where it is no reply."""
    start = len(_REPLY) + _LENGTH.size
    if len(reply) < start:
        return -1
    start += _LENGTH.unpack_from(reply, len(_REPLY))[0]
    return -1 if len(reply) < start + _LENGTH.size else int(_LENGTH.unpack_from(reply, start)[0])


def _about(method: str, sequence_id: int) -> bytes:
    """A message's head behind its kind."""
    name = method.encode()
    return b"%s%s%s" % (_LENGTH.pack(len(name)), name, _LENGTH.pack(sequence_id))
