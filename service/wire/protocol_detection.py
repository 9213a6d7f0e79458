"""Clients that speak something else: what it is, and what to tell them and the log."""

from __future__ import annotations

from service.wire.scanner import ProtocolError

_THIS_PORT = (
    "this port speaks Thrift's strict binary protocol, framed or not: see idl/inference.thrift, "
    "and docs/clients.md"
)

_HTTP_STARTS = (
    *(b"GET ", b"POST", b"HEAD", b"PUT ", b"DELE", b"OPTI", b"PATC", b"CONN", b"TRAC"),
    b"PRI ",
)
_HTTP_TEXT = "This port speaks Thrift's binary protocol and no HTTP.\n"
_HTTP_ANSWER = (
    "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n"
    f"Content-Length: {len(_HTTP_TEXT)}\r\nConnection: close\r\n\r\n{_HTTP_TEXT}"
).encode()

TLS_HANDSHAKE = 0x16
"""The first byte of each TLS connection."""


SMALLEST_FOREIGN_LENGTH = 0x16030000
"""Less than any beginning of a known protocol, taken for a length, but for those below 0."""


class ForeignProtocolError(ProtocolError):
    """The connection's first bytes are not Thrift's; it is closed without waiting for more.

    Attributes:
        answer: what to send before that, in the client's own protocol; b"" for nothing.
    """

    def __init__(self, start: bytes, what: str, answer: bytes = b"") -> None:
        super().__init__(f"the connection starts with {start!r}, {what}")
        self.answer = answer


def foreign_protocol(start: bytes) -> ForeignProtocolError | None:
    """The error for another protocol on a plain port, or None where it is none that is known.

    Args:
        start: the first four bytes.
    """
    if start in _HTTP_STARTS:
        return ForeignProtocolError(start, f"an HTTP request; {_THIS_PORT}", _HTTP_ANSWER)
    if start[0] == TLS_HANDSHAKE and start[1] == 3:
        what = "a TLS handshake; this server has no --tls-cert and takes plain connections"
        return ForeignProtocolError(start, what)
    if start[:1] == b"\x82":
        return ForeignProtocolError(start, f"Thrift's compact protocol; {_THIS_PORT}")
    return None


def unknown_protocol(start: bytes) -> ForeignProtocolError:
    """The error for bytes that begin nothing known.

    Args:
        start: the first four bytes.
    """
    return ForeignProtocolError(start, f"neither a frame's length nor 0x8001; {_THIS_PORT}")


def plain_client(start: bytes) -> ForeignProtocolError:
    """The error for a client that does not begin with a handshake on a TLS port.

    Args:
        start: the first bytes, as many as came.
    """
    what = "an HTTP request" if start[:4] in _HTTP_STARTS else "no TLS handshake"
    return ForeignProtocolError(
        start[:4], f"{what}; this port takes TLS connections only, because of --tls-cert"
    )
