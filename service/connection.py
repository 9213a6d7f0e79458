"""One client's connection: read a call, answer it, until the client or the server is done."""

from __future__ import annotations

import logging

from thriftpy2.thrift import TMessageType

from service.caller import call_arrived
from service.foreign_protocols import ForeignProtocolError
from service.framing import FRAME_HEADER, MessageReader
from service.message_memory import MessageMemory
from service.processor import Processor
from service.scanner import MessageLimits, ProtocolError
from service.transport import Transport

_log = logging.getLogger(__name__)

_DISCARD_CHUNK_BYTES = 64 * 1024
# A client that is refused gets to read why, unless it keeps sending beyond this.
_MOST_DISCARDED_BYTES = 64 * 1024 * 1024


class Connection:
    """Serves one client in the calling thread.

    Attributes:
        peer: the client's address, for log lines.
    """

    def __init__(
        self,
        transport: Transport,
        peer: str,
        processor: Processor,
        limits: MessageLimits,
        memory: MessageMemory,
    ) -> None:
        self.peer = peer
        self._transport = transport
        self._processor = processor
        self._reader = MessageReader(transport, limits, memory)
        self._discarding = False
        self._stopping = False

    @property
    def idle(self) -> bool:
        """Whether no request is being read, worked on or answered."""
        return self._reader.idle or self._discarding

    def stop(self) -> None:
        """Let `serve` return once the request under way is answered. Any thread may call this."""
        self._stopping = True
        self._reader.stop()
        if self._discarding:
            self._transport.stop_receiving()

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
                self._send(self._processor.process(message), message.framed)
        except ProtocolError as error:
            _log.warning("closed %s: %s", self.peer, error)
            self._refuse(error)
        except (EOFError, TimeoutError) as error:
            _log.info("closed %s: %s", self.peer, error)
        except OSError as error:
            _log.debug("closed %s: %s", self.peer, error)
        finally:
            self._reader.release()
            self._transport.close()

    def _send(self, reply: bytes, framed: bool) -> None:
        self._transport.send(FRAME_HEADER.pack(len(reply)) + reply if framed else reply)

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
            if framed is not None:
                reply = self._processor.refuse(self._reader.name, self._reader.sequence_id, error)
                self._send(reply, framed)
            self._transport.finish_sending()
            self._discard()
        except OSError as broken:
            _log.debug("%s did not wait for the reason: %s", self.peer, broken)

    def _discard(self) -> None:
        """Receive into nothing until the client closes, for the time of a message at most."""
        self._discarding = True
        if self._stopping:
            return
        chunk = memoryview(bytearray(_DISCARD_CHUNK_BYTES))
        discarded = 0
        while discarded < _MOST_DISCARDED_BYTES and (received := self._transport.discard(chunk)):
            discarded += received
