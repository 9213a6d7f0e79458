"""One client's connection: read a call, answer it, until the client or the server is done."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable

from thriftpy2.thrift import TMessageType

from service.wire.buffer_budget import BufferBudget, MemoryFullError
from service.wire.framing import FRAME_HEADER, Message, MessageReader
from service.wire.large_strings import MARK_BYTES
from service.wire.peer import call_arrived
from service.wire.processor import Processor
from service.wire.protocol_detection import ForeignProtocolError
from service.wire.scanner import MessageLimits, ProtocolError
from service.wire.transport import Transport

_log = logging.getLogger(__name__)

_DISCARD_CHUNK_BYTES = 64 * 1024
# A client that is refused gets to read why, unless it keeps sending beyond this.
_MOST_DISCARDED_BYTES = 64 * 1024 * 1024


class Connection:
    """Serves one client in the calling thread.

    Args:
        transport: the way to the client.
        address: its address.
        processor: answers its calls.
        limits: what a message may cost.
        memory: what all messages take together.
        is_reserve: whether the connection is closed after one call.
        replied: called for each reply that was sent, or could not be, with the client's address,
            the size of the call's arguments (None if they have not all arrived) and that of the
            reply, in bytes; None for no such call.

    Attributes:
        address: the client's address, for log lines.
        is_reserve: as given.
        opened_s: when, by `time.monotonic`.
    """

    def __init__(
        self,
        transport: Transport,
        address: str,
        processor: Processor,
        limits: MessageLimits,
        memory: BufferBudget,
        *,
        is_reserve: bool = False,
        replied: Callable[[str, int | None, int], None] | None = None,
    ) -> None:
        self.address = address
        self.is_reserve = is_reserve
        self.opened_s = time.monotonic()
        self._transport = transport
        self._processor = processor
        self._reader = MessageReader(transport, limits, memory)
        self._memory = memory
        self._replied = replied
        self._answering = False
        self._discarding = False
        self._stopping = False

    @property
    def idle(self) -> bool:
        """Whether no request is being read, worked on or answered."""
        return self._reader.idle or self._discarding

    @property
    def is_silent(self) -> bool:
        """Whether the client is to send something, and nothing of it is there."""
        if self._answering:
            return False
        try:
            self._transport.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except OSError as error:
            # Otherwise it breaks, or has been closed meanwhile.
            return isinstance(error, BlockingIOError)
        return False

    def stop(self) -> None:
        """Let `serve` return once the request under way is answered. Any thread may call this."""
        self._stopping = True
        self._reader.stop()
        if self._discarding:
            self._transport.stop_receiving()

    def take_memory(self, count_bytes: int) -> None:
        """Count what the call under way takes besides its message, until it is answered.

        Raises:
            ProtocolError: there is no room.
        """
        self._reader.take_memory(count_bytes)

    def cut_off(self) -> None:
        """Break the connection, whatever it is doing. Any thread may call this."""
        self._transport.cut_off()

    def serve(self) -> None:
        """Answer calls until the client closes, `stop` is called, or the connection breaks."""
        try:
            self._transport.open()
            while (message := self._reader.read()) is not None:
                if message.message_type != TMessageType.CALL:
                    raise ProtocolError(
                        f"the message has type {message.message_type}, a call has "
                        f"{TMessageType.CALL}; no method here is oneway"
                    )
                call_arrived()
                self._answering = True
                request_bytes = 0 if self._replied is None else _arguments_bytes(message)
                reply = self._processor.process(message)
                if reply is not None:
                    reply = _in_style(reply, message.framed)
                    try:
                        if self.is_reserve:
                            self._transport.finish_sending(reply)
                            return
                        self._transport.send(reply)
                    finally:
                        if self._replied is not None:
                            self._replied(self.address, request_bytes, len(reply))
                self._answering = False
                # While the next message is waited for, nothing is kept of this one.
                del message, reply
        except ProtocolError as error:
            if isinstance(error, MemoryFullError) and not self.is_reserve:
                self._memory.refusals.warn("closed %s: %s", self.address, error)
            else:
                self._tell(logging.WARNING, error)
            self._refuse(error)
        except (EOFError, TimeoutError) as error:
            self._tell(logging.INFO, error)
        except OSError as error:
            _log.debug("closed %s: %s", self.address, error)
        finally:
            self._reader.release()
            self._transport.close()

    def _tell(self, level: int, error: Exception) -> None:
        # With all connections taken, every further one would be a line.
        _log.log(logging.DEBUG if self.is_reserve else level, "closed %s: %s", self.address, error)

    def _refuse(self, error: ProtocolError) -> None:
        """Tell the client why, and leave it the time to read that.

        Closing with unread bytes would reset the connection, and the client would lose the reply.
        """
        framed = self._reader.framed
        try:
            if isinstance(error, ForeignProtocolError):
                if error.answer:
                    self._transport.send(error.answer)
                return
            reply = b""
            if framed is not None:
                reply = self._processor.refuse(self._reader.name, self._reader.sequence_id, error)
                reply = _in_style(reply, framed)
                if self._replied is not None:
                    self._replied(self.address, None, len(reply))
            if isinstance(error, MemoryFullError) and self._reader.skip_frame():
                self._transport.finish_sending(reply)
                return
            self._transport.finish_sending(reply)
            self._reader.release()
            self._discard()
        except (EOFError, OSError) as broken:
            _log.debug("%s did not wait for the reason: %s", self.address, broken)

    def _discard(self) -> None:
        """Receive into nothing until the client closes, for the time of a message at most."""
        self._discarding = True
        if self._stopping:
            return
        chunk = memoryview(bytearray(_DISCARD_CHUNK_BYTES))
        discarded = 0
        while discarded < _MOST_DISCARDED_BYTES and (received := self._transport.discard(chunk)):
            discarded += received


def _arguments_bytes(message: Message) -> int:
    marks_bytes = MARK_BYTES * len(message.strings)
    return len(message.body) - marks_bytes + sum(map(len, message.strings))


def _in_style(reply: bytes, framed: bool) -> bytes:
    return FRAME_HEADER.pack(len(reply)) + reply if framed else reply
