"""One connection to a server, with one call in flight at most.

A call that does not end with its own complete reply leaves the connection unsound, whatever the
reason, and is not used again: so a late reply reaches no other call.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from typing import Any

from service.client.deadline import CallDeadline
from service.client.exchange import (
    WAITING_FOR_REPLY,
    ConnectionState,
    Endpoint,
    Exchange,
    reason_of,
)


class ClientConnection(ConnectionState):
    """A connection that stands.

    Args:
        endpoint: the server.
        deadline: of the call that needs it.

    Raises:
        ConnectionFailedError: no server listens, or the two cannot agree on TLS.
        DeadlineExceededError: the call's time was over first.
    """

    def __init__(self, endpoint: Endpoint, deadline: CallDeadline) -> None:
        super().__init__(endpoint)
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
        exchange = self.begun(method, arguments)
        self._send(exchange.request, deadline)
        while not exchange.received(self._receive(exchange, deadline)):
            pass
        return self.ended(exchange)

    def usable(self) -> bool:
        """Whether it is sound, and its socket is open and silent."""
        if not self.sound:
            return False
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Close the socket."""
        self.sound = False
        self._socket.close()

    def _send(self, message: bytes, deadline: CallDeadline) -> None:
        rest = memoryview(message)
        try:
            while rest:
                self._socket.settimeout(deadline.check("while it was sent"))
                rest = rest[self._socket.send(rest) :]
        except TimeoutError:
            raise deadline.exceeded("while it was sent") from None
        except OSError as error:
            told = f"while the call was sent: {reason_of(error)}"
            raise self._endpoint.broken(told, 0) from error

    def _receive(self, exchange: Exchange, deadline: CallDeadline) -> int:
        try:
            self._socket.settimeout(deadline.check(WAITING_FOR_REPLY))
            count = self._socket.recv_into(exchange.space())
        except TimeoutError:
            raise deadline.exceeded(WAITING_FOR_REPLY) from None
        except OSError as error:
            raise self._endpoint.lost(exchange, error) from error
        if not count:
            raise self._endpoint.lost(exchange)
        return count


def _connect(endpoint: Endpoint, deadline: CallDeadline) -> socket.socket:
    """A socket to the first of the host's addresses that answers, with TLS where that is wanted.

    Each has an equal share of the time that is left, so that one which is silent hides no other.
    """
    until_s = time.monotonic() + min(endpoint.connect_timeout_s, deadline.remaining_s)
    try:
        addresses = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise endpoint.unknown(error) from error
    errors: list[OSError] = []
    for position, (family, kind, protocol, _, address) in enumerate(addresses):
        deadline.check("while it connected")
        sock = socket.socket(family, kind, protocol)
        try:
            share_s = (until_s - time.monotonic()) / (len(addresses) - position)
            sock.settimeout(max(0.001, share_s))
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
    raise endpoint.unreachable(errors) from errors[-1]
