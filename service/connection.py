"""One client's connection: read a call, answer it, until the client or the server is done."""

from __future__ import annotations

import logging
import socket
import time

from thriftpy2.thrift import TMessageType

from service.framing import FRAME_HEADER, MessageReader, stop_receiving, timeval
from service.processor import Processor
from service.scanner import ProtocolError

_log = logging.getLogger(__name__)

_KEEPALIVE_IDLE_S, _KEEPALIVE_INTERVAL_S, _KEEPALIVE_PROBES = 60, 15, 4
_DISCARD_CHUNK_BYTES = 64 * 1024
# A client that is refused gets to read why, unless it keeps sending beyond this.
_MOST_DISCARDED_BYTES = 64 * 1024 * 1024


class Connection:
    """Serves one accepted socket in the calling thread.

    Attributes:
        peer: the client's address, for log lines.
    """

    def __init__(
        self,
        sock: socket.socket,
        peer: str,
        processor: Processor,
        max_frame_bytes: int,
        message_timeout_s: float,
    ) -> None:
        self.peer = peer
        self._socket = sock
        self._processor = processor
        self._message_timeout_s = message_timeout_s
        self._reader = MessageReader(sock, max_frame_bytes, message_timeout_s)
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
            stop_receiving(self._socket)

    def cut_off(self) -> None:
        """Break the connection, whatever it is doing. Any thread may call this."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def serve(self) -> None:
        """Answer calls until the client closes, `stop` is called, or the connection breaks."""
        try:
            configure(self._socket, self._message_timeout_s)
            while (message := self._reader.read()) is not None:
                if message.message_type != TMessageType.CALL:
                    raise ProtocolError(
                        f"the message has type {message.message_type}, a call has "
                        f"{TMessageType.CALL}; no method here is oneway"
                    )
                self._send(self._processor.process(message), message.framed)
        except ProtocolError as error:
            _log.warning("closed %s: %s", self.peer, error)
            self._refuse(error)
        except BlockingIOError:
            _log.info(
                "closed %s: it did not take its reply within --message-timeout-s = %s",
                self.peer,
                self._message_timeout_s,
            )
        except (EOFError, TimeoutError) as error:
            _log.info("closed %s: %s", self.peer, error)
        except OSError as error:
            _log.debug("closed %s: %s", self.peer, error)
        finally:
            self._socket.close()

    def _send(self, reply: bytes, framed: bool) -> None:
        self._socket.sendall(FRAME_HEADER.pack(len(reply)) + reply if framed else reply)

    def _refuse(self, error: ProtocolError) -> None:
        """Tell a Thrift client why, and leave it the time to read that.

        Closing with unread bytes would reset the connection, and the client would lose the reply.
        """
        if self._reader.framed is None:
            return
        reply = self._processor.encode_exception(
            b"", self._reader.sequence_id, error.exception_type, str(error)
        )
        try:
            self._send(reply, self._reader.framed)
            self._socket.shutdown(socket.SHUT_WR)
            self._discard()
        except OSError as broken:
            _log.debug("%s did not wait for the reason: %s", self.peer, broken)

    def _discard(self) -> None:
        """Receive into nothing until the client closes."""
        self._discarding = True
        if self._stopping:
            return
        chunk = bytearray(_DISCARD_CHUNK_BYTES)
        self._socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(self._message_timeout_s)
        )
        deadline_s = time.monotonic() + self._message_timeout_s
        discarded = 0
        while discarded < _MOST_DISCARDED_BYTES and time.monotonic() < deadline_s:
            received = self._socket.recv_into(chunk)
            if received == 0:
                return
            discarded += received


def configure(sock: socket.socket, message_timeout_s: float) -> None:
    """Set an accepted socket up.

    Replies leave at once (without TCP_NODELAY, an unframed reply waits for the client's delayed
    acknowledgement); a client that is gone without a word is noticed within two minutes; one that
    does not read its reply does not hold its thread for ever.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval(message_timeout_s))
