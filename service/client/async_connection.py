"""One connection of an event loop to a server, with one call in flight at most.

A call that does not end with its own complete reply, one that was cancelled among them, leaves the
connection unsound, and it is not used again: so a late reply reaches no other call.
"""

from __future__ import annotations

import asyncio
import select
import socket
from typing import Any, cast

from service.client.deadline import CallDeadline
from service.client.errors import ClientError
from service.client.exchange import WAITING_FOR_REPLY, ConnectionState, Endpoint, Exchange
from service.client.waiting import is_done_within, look_at

# For what comes while no call is under way; what it says does not matter.
_UNASKED_BYTES = 16


class AsyncConnection(ConnectionState, asyncio.BufferedProtocol):
    """A connection that stands, once `open` has returned.

    Args:
        endpoint: the server.

    Attributes:
        gone: done when the socket is closed.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._is_closed = False
        # Of the call under way.
        self._exchange: Exchange | None = None
        self._replied: asyncio.Future[None] | None = None
        self.gone: asyncio.Future[None] = self._loop.create_future()

    async def open(self, deadline: CallDeadline) -> None:
        """Connect; after an error or a cancellation nothing is left of it.

        Args:
            deadline: of the call that needs it.

        Raises:
            ConnectionFailedError: no server listens, or the two cannot agree on TLS.
            DeadlineExceededError: the call's time was over first.
        """
        limit_s = min(self._endpoint.connect_timeout_s, deadline.remaining_s)
        connecting = asyncio.ensure_future(self._connect(self._loop.time() + limit_s))
        try:
            if await is_done_within(connecting, limit_s):
                connecting.result()
                return
            if limit_s < self._endpoint.connect_timeout_s:
                raise deadline.exceeded("while it connected")
            raise self._endpoint.unreachable([])
        except BaseException:
            self.close()
            raise

    async def call(self, method: str, arguments: dict[str, Any], deadline: CallDeadline) -> Any:
        """Make a call; `ClientConnection.call` has the rest."""
        exchange = self.begun(method, arguments)
        if self._transport is None or self._is_closed:
            raise self._endpoint.lost(exchange)
        self._exchange, self._replied = exchange, self._loop.create_future()
        self._replied.add_done_callback(look_at)
        timer = self._loop.call_later(deadline.remaining_s, self._expire, deadline)
        try:
            self._transport.write(exchange.request)
            await self._replied
        finally:
            timer.cancel()
            self._exchange = self._replied = None
        return self.ended(exchange)

    def usable(self) -> bool:
        """Whether it is sound, and its socket is open and silent."""
        if not self.sound or self._transport is None or self._is_closed:
            return False
        # What has come may not have been told yet: the loop was busy with something else.
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket"), select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Abort the transport, without a word to the server."""
        self.sound = False
        self._is_closed = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The loop has connected."""
        self._transport = cast(asyncio.Transport, transport)
        if self._is_closed:
            self._transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 (asyncio's name)
        """Where the loop writes what comes."""
        if self._exchange is None or self._exchange.is_complete:
            return memoryview(bytearray(_UNASKED_BYTES))
        return self._exchange.space()

    def buffer_updated(self, nbytes: int) -> None:
        """The loop has written so many bytes there."""
        exchange = self._exchange
        if exchange is None or exchange.is_complete:
            self.close()
            return
        try:
            is_complete = exchange.received(nbytes)
        except ClientError as error:
            self._fail(error)
            return
        if is_complete and self._replied is not None and not self._replied.done():
            self._replied.set_result(None)

    def eof_received(self) -> None:
        """The server has closed its side."""
        self._lose(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed: by the server, by `close`, or since it broke."""
        self._lose(exc)
        if not self.gone.done():
            self.gone.set_result(None)

    async def _connect(self, until_s: float) -> None:
        """Connect to the first of the host's addresses that answers, with TLS where wanted.

        Each has an equal share of the time that is left, so that one which is silent hides no
        other; the last one has all of it.
        """
        endpoint, loop = self._endpoint, self._loop
        where = (endpoint.host, endpoint.port)
        try:
            addresses = socket.getaddrinfo(
                *where, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
            )
        except (OSError, UnicodeError):
            # A name, which takes a thread to look up.
            try:
                addresses = await loop.getaddrinfo(*where, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:
                raise endpoint.unknown(error) from error
        name = endpoint.tls_server_name if endpoint.tls is not None else None
        errors: list[OSError] = []
        for left, (family, kind, protocol, _, address) in zip(
            range(len(addresses), 0, -1), addresses, strict=True
        ):
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setblocking(False)
                connecting = asyncio.ensure_future(loop.sock_connect(sock, address))
                share_s = (until_s - loop.time()) / left if left > 1 else None
                if not await is_done_within(connecting, share_s):
                    raise TimeoutError
                connecting.result()
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                # asyncio itself sets TCP_NODELAY.
                await loop.create_connection(
                    lambda: self, sock=sock, ssl=endpoint.tls, server_hostname=name
                )
                return
            except OSError as error:
                sock.close()
                errors.append(error)
            except BaseException:
                sock.close()
                raise
        raise endpoint.unreachable(errors) from errors[-1]

    def _expire(self, deadline: CallDeadline) -> None:
        is_sent = self._transport is None or not self._transport.get_write_buffer_size()
        self._fail(deadline.exceeded(WAITING_FOR_REPLY if is_sent else "while it was sent"))

    def _lose(self, error: Exception | None) -> None:
        """Take note that nothing more comes, and why."""
        if self._exchange is None:
            self.close()
        else:
            self._fail(self._endpoint.lost(self._exchange, error))

    def _fail(self, error: ClientError) -> None:
        """End the call under way with this error, and the connection with it."""
        if self._replied is not None and not self._replied.done():
            self._replied.set_exception(error)
        self.close()
