"""TLS between the server and its clients, by the ssl module."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from service.errors import ConfigurationError
from service.wire.protocol_detection import TLS_HANDSHAKE, plain_client
from service.wire.scanner import ProtocolError
from service.wire.transport import PlainTransport, Timeouts

# A record at a time. The memory that records pass through stays as large as it once was.
_CHUNK_BYTES = 16 * 1024

VERIFY_FLAGS = ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
"""How strictly server and client check certificates, on every Python alike.

Chains, dates, names and signatures are checked as OpenSSL does by default. Not required are the
extensions of RFC 5280 (VERIFY_X509_STRICT, a default from Python 3.13 on), which many private
authorities lack. An intermediate authority may be in the file of authorities by itself.
"""


@dataclass(frozen=True)
class TlsFiles:
    """The server's files for TLS, all in PEM format.

    Attributes:
        cert: its certificate chain.
        key: its private key.
        ca: the authorities whose certificates clients must show; None asks for none.
    """

    cert: str
    key: str
    ca: str | None = None


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """The server's side of TLS 1.2 or later.

    Raises:
        ConfigurationError: a file cannot be read, is none of its kind, or the key is another
            certificate's.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    # Clients keep their connections. A ticket would be of use to few, and reset the connection of
    # one that closes without having read it.
    context.num_tickets = 0
    # Whichever of the two files is wrong, OpenSSL does not say which.
    both = f"--tls-cert {files.cert}, --tls-key {files.key}"
    try:
        context.load_cert_chain(files.cert, files.key, _no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigurationError(f"{both}: the key is not that of the certificate") from error
        raise ConfigurationError(
            f"{both}: not a certificate and its key in PEM format ({_reason(error)})"
        ) from error
    except OSError as error:
        raise ConfigurationError(f"{both}: {error.strerror}") from error
    if files.ca is not None:
        try:
            context.load_verify_locations(files.ca)
        except ssl.SSLError as error:
            raise ConfigurationError(
                f"--tls-ca {files.ca}: no certificates in PEM format ({_reason(error)})"
            ) from error
        except OSError as error:
            raise ConfigurationError(f"--tls-ca {files.ca}: {error.strerror}") from error
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags = VERIFY_FLAGS
    return context


def _no_password() -> str:
    raise ConfigurationError("--tls-key: the key is encrypted; give one without a password")


class TlsTransport:
    """Bytes in TLS records, over a plain transport, which keeps the time limits.

    ssl's own sockets cannot be stopped by another thread, and know a time limit for each call only.
    So the records pass through memory here, and the socket stays as it is.

    Args:
        sock: the client's connection, blocking.
        timeouts: how long the client may take.
        context: the server's side.

    Attributes:
        sock: as given.
    """

    def __init__(self, sock: socket.socket, timeouts: Timeouts, context: ssl.SSLContext) -> None:
        self.sock = sock
        self._plain = PlainTransport(sock, timeouts)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._chunk = memoryview(bytearray(_CHUNK_BYTES))

    @property
    def received_bytes(self) -> int:
        """How many have been received, encrypted as they are, by calls that are over."""
        return self._plain.received_bytes

    def open(self) -> None:
        """Shake hands, within the time of a message.

        Raises:
            ProtocolError: the client speaks no TLS, or the two cannot agree.
            EOFError: the client closed the connection meanwhile.
            ConnectionAbortedError: it did so before it had sent anything.
        """
        self._plain.open()
        received = 0
        while not self._shaken_hands():
            self._flush()
            begun = received > 0
            received = self._plain.receive_some(self._chunk)
            if received == 0 and not begun:
                # As load balancers do to see whether the port is open.
                raise ConnectionAbortedError("the client sent nothing")
            if received == 0:
                raise EOFError("the client closed the connection before the end of its handshake")
            if not begun and self._chunk[0] != TLS_HANDSHAKE:
                raise plain_client(bytes(self._chunk[:received]))
            self._incoming.write(self._chunk[:received])
        self._flush()
        self._plain.message_arrived()

    def receive_first(self, buffer: memoryview) -> int:
        """Wait for the first bytes of a message, within the idle timeout; 0 at the end."""
        return self._read(buffer, self._plain.receive_first)

    def receive_more(self, *buffers: memoryview) -> int:
        """Receive more of a message, within its timeout; 0 at the end. A record at a time."""
        return self._read(buffers[0], self._plain.receive_some)

    def receive_some(self, buffer: memoryview) -> int:
        """The same."""
        return self._read(buffer, self._plain.receive_some)

    def message_arrived(self) -> None:
        """The message is complete: its timeout ends."""
        self._plain.message_arrived()

    def send(self, data: bytes) -> None:
        """Send all of `data`, within the write timeout."""
        if len(data) <= _CHUNK_BYTES:
            self._encrypt(data)
            self._flush()
            return
        with self._plain.sending_within() as send:
            for start in range(0, len(data), _CHUNK_BYTES):
                self._encrypt(data[start : start + _CHUNK_BYTES])
                send(self._outgoing.read())

    def finish_sending(self, last: bytes = b"") -> None:
        """Send `last`, TLS's own goodbye, and the socket's."""
        self._encrypt(last)
        self._end_tls()
        self._plain.finish_sending(self._outgoing.read())

    def discard(self, buffer: memoryview) -> int:
        """Receive and discard records, over `buffer`; 0 at the end."""
        return self._plain.discard(buffer)

    def stop_receiving(self) -> None:
        """Wake the receiving thread; replies can still be sent. Any thread may call this."""
        self._plain.stop_receiving()

    def cut_off(self) -> None:
        """Break the connection, whatever it is doing. Any thread may call this."""
        self._plain.cut_off()

    def close(self) -> None:
        """Say goodbye where that needs no waiting, and close the socket."""
        self._end_tls()
        if self._outgoing.pending:
            self._plain.send_at_once(self._outgoing.read())
        self._plain.close()

    def _shaken_hands(self) -> bool:
        """Go on with the handshake as far as the bytes go; whether it is done."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            # The client gets an alert that says why.
            self._flush()
            raise ProtocolError(f"the TLS handshake failed ({_reason(error)})") from error
        return True

    def _read(self, buffer: memoryview, receive: Callable[[memoryview], int]) -> int:
        while True:
            try:
                # The annotation of ssl's stub is that of the call without a buffer.
                return int(self._tls.read(len(buffer), buffer))
            except ssl.SSLWantReadError:
                self._flush()
            except ssl.SSLZeroReturnError:
                return 0
            except ssl.SSLError as error:
                raise ProtocolError(f"the TLS records are broken ({_reason(error)})") from error
            received = receive(self._chunk)
            # A record that has begun is the beginning of a message.
            receive = self._plain.receive_some
            if received == 0:
                # Without TLS's goodbye, as many clients close, or the drain has closed this side.
                # A message that is cut short shows by its own lengths.
                return 0
            self._incoming.write(self._chunk[:received])

    def _encrypt(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._tls.write(rest) :]

    def _flush(self) -> None:
        """Send the records that are ready."""
        if self._outgoing.pending:
            self._plain.send(self._outgoing.read())

    def _end_tls(self) -> None:
        """Make the goodbye, where there was a handshake; the client's own is not waited for."""
        with contextlib.suppress(ssl.SSLError, ValueError):
            self._tls.unwrap()


def _reason(error: ssl.SSLError) -> str:
    """What OpenSSL says, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return (error.reason or "unknown").lower().replace("_", " ")
