"""The listening socket."""

from __future__ import annotations

import errno
import socket
from typing import NamedTuple


class AddressOptions(NamedTuple):
    """The options of the command line that an address comes from, for messages."""

    host: str
    port: str


_ADDRESS = AddressOptions("--host", "--port")


def bind(host: str, port: int, options: AddressOptions = _ADDRESS) -> socket.socket:
    """A socket bound to an address but not yet listening: clients are refused until it does.

    Never with SO_REUSEPORT, which lets two servers share a port and its clients unnoticed.

    Args:
        host: name or address to listen on.
        port: 0 picks a free one.
        options: that the two come from.

    Raises:
        OSError: the address cannot be had; the message is one line for the user.
    """
    try:
        candidates = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise OSError(f"cannot resolve {options.host} {host!r}: {error.strerror}") from error
    family, kind, protocol, _, address = candidates[0]
    try:
        try:
            return _bind(family, kind, protocol, address, reuse=False)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            # Perhaps only connections of an earlier server linger there.
            return _bind(family, kind, protocol, address, reuse=True)
    except OSError as error:
        raise _explained(error, host, port, options) from error


def listen(sock: socket.socket, backlog: int, options: AddressOptions = _ADDRESS) -> None:
    """Let clients in.

    Args:
        sock: what `bind` gave.
        backlog: connections that may wait until they are accepted.
        options: as for `bind`.

    Raises:
        OSError: another process took the port meanwhile.
    """
    host, port = sock.getsockname()[:2]
    try:
        # Not before: without it, no other process can bind the port while the model loads. Now the
        # connections inherit it, so that they do not block the port after a restart.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.listen(backlog)
    except OSError as error:
        raise _explained(error, host, port, options) from error


def address_text(address: tuple[object, ...]) -> str:
    """A socket address as host:port."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def _bind(
    family: int, kind: int, protocol: int, address: tuple[object, ...], *, reuse: bool
) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _explained(error: OSError, host: str, port: int, options: AddressOptions = _ADDRESS) -> OSError:
    if error.errno == errno.EADDRINUSE:
        text = (
            f"port {port} on {host} is in use by another process; "
            f"stop it or choose another with {options.port}"
        )
    elif error.errno == errno.EACCES:
        text = (
            f"port {port} on {host} may not be used by this user; "
            f"choose another with {options.port}"
        )
    elif error.errno == errno.EADDRNOTAVAIL:
        text = f"{host} is not an address of this machine; choose another with {options.host}"
    else:
        text = f"cannot listen on {host}, port {port}: {error.strerror}"
    return OSError(error.errno, text)
