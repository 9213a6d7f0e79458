"""Connections of an event loop that are kept between calls, at most so many at a time."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from service.client.async_connection import AsyncConnection
from service.client.deadline import CallDeadline
from service.client.errors import ClientClosedError, ConnectionFailedError
from service.client.exchange import ConnectionState, Endpoint
from service.client.waiting import is_done_within


class AsyncConnectionPool:
    """Lends a connection to one call at a time, in the event loop of the first call.

    `ConnectionPool` says which ones are replaced.

    Args:
        endpoint: the server.
        max_connections: connections at a time; further calls wait for one.
        idle_timeout_s: a connection that was unused for longer is closed instead of used again.
    """

    def __init__(self, endpoint: Endpoint, max_connections: int, idle_timeout_s: float) -> None:
        self._endpoint = endpoint
        self._idle_timeout_s = idle_timeout_s
        self._permits = asyncio.Semaphore(max_connections)
        # The one that was used last is at the right, and is the first to be used again.
        self._idle: deque[AsyncConnection] = deque()
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = asyncio.Event()

    async def call(
        self,
        method: str,
        arguments: Callable[[ConnectionState], dict[str, Any]],
        deadline: CallDeadline,
    ) -> Any:
        """Make a call on a connection that is free, or on a fresh one.

        Args:
            method: its name in the IDL.
            arguments: makes them for the connection, once it is there.
            deadline: when the reply has to be complete.

        Returns:
            The result's struct.

        Raises:
            ClientError: there is none.
        """
        self._check_open()
        await self._wait_for_permit(deadline)
        connection = None
        try:
            self._check_open()
            if (connection := self._take()) is not None:
                try:
                    return await connection.call(method, arguments(connection), deadline)
                except ConnectionFailedError as error:
                    if not error.unanswered:
                        raise
                    connection.close()
            connection = AsyncConnection(self._endpoint)
            await connection.open(deadline)
            return await connection.call(method, arguments(connection), deadline)
        finally:
            if connection is not None:
                self._give_back(connection)
            self._permits.release()

    async def closed_within(self, seconds: float) -> bool:
        """Wait so long, or until the pool is closed; whether it is."""
        return await is_done_within(asyncio.ensure_future(self._closed.wait()), seconds)

    async def close(self) -> None:
        """Close all connections; those of calls under way when these are done."""
        self._closed.set()
        # Sockets of another process, or of a loop that has ended, close with their objects.
        if not self._is_at_home():
            return
        idle = list(self._idle)
        self._idle.clear()
        for connection in idle:
            connection.close()
        if idle:
            await asyncio.wait({connection.gone for connection in idle})

    def _is_at_home(self) -> bool:
        return os.getpid() == self._pid and self._loop in (None, asyncio.get_running_loop())

    def _check_open(self) -> None:
        address = self._endpoint.address
        if self._closed.is_set():
            raise ClientClosedError(f"{address}: this client is closed; make another")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        if not self._is_at_home():
            raise ClientClosedError(
                f"{address}: this client belongs to another event loop or process; make one in each"
            )

    async def _wait_for_permit(self, deadline: CallDeadline) -> None:
        if not self._permits.locked():
            await self._permits.acquire()
            return
        acquiring = asyncio.ensure_future(self._permits.acquire())
        try:
            if not await is_done_within(acquiring, deadline.remaining_s):
                raise deadline.exceeded("while it waited for one of max_connections")
        except asyncio.CancelledError:
            # It may have come just now.
            if acquiring.done() and not acquiring.cancelled():
                self._permits.release()
            raise

    def _take(self) -> AsyncConnection | None:
        """A kept connection that can be relied on; all others that come up are closed."""
        oldest_s = time.monotonic() - self._idle_timeout_s
        while self._idle and self._idle[0].idle_since_s < oldest_s:
            self._idle.popleft().close()
        while self._idle:
            connection = self._idle.pop()
            if connection.usable():
                return connection
            connection.close()
        return None

    def _give_back(self, connection: AsyncConnection) -> None:
        if connection.sound and not self._closed.is_set():
            self._idle.append(connection)
        else:
            connection.close()
