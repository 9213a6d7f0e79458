"""Connections that are kept between calls, at most so many at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from service.client.connection import ClientConnection
from service.client.deadline import CallDeadline
from service.client.errors import ClientClosedError, ConnectionFailedError
from service.client.exchange import ConnectionState, Endpoint
from service.client.idle_connections import IdleConnections


class ConnectionPool:
    """Lends a connection to one call at a time. Any thread may call this.

    A kept connection that breaks before a byte of the reply is there is replaced by a fresh one,
    once: servers and proxies close those that idle, and a stopping server those between calls, in
    the same moment in which a call may be sent. A call changes nothing, so that it may be sent
    twice.

    Args:
        endpoint: the server.
        max_connections: connections at a time; further calls wait for one.
        idle_timeout_s: a connection that was unused for longer is closed instead of used again.
    """

    def __init__(self, endpoint: Endpoint, max_connections: int, idle_timeout_s: float) -> None:
        self._endpoint = endpoint
        self._permits = threading.BoundedSemaphore(max_connections)
        self._idle = IdleConnections[ClientConnection](idle_timeout_s)
        self._pid = os.getpid()
        self.closed = threading.Event()

    def call(
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
        if not self._permits.acquire(timeout=deadline.remaining_s):
            raise deadline.exceeded("while it waited for one of max_connections")
        connection = None
        try:
            self._check_open()
            if (connection := self._idle.take()) is not None:
                try:
                    return connection.call(method, arguments(connection), deadline)
                except ConnectionFailedError as error:
                    if not error.unanswered:
                        raise
                    connection.close()
            # None was kept, or the server was just closing it, and did not take the call.
            connection = ClientConnection(self._endpoint, deadline)
            return connection.call(method, arguments(connection), deadline)
        finally:
            if connection is not None:
                self._give_back(connection)
            self._permits.release()

    def close(self) -> None:
        """Close all connections; those of calls under way when these are done."""
        self.closed.set()
        self._idle.close_all()

    def _check_open(self) -> None:
        if self.closed.is_set():
            raise ClientClosedError(
                f"{self._endpoint.address}: this client is closed; make another"
            )
        if os.getpid() != self._pid:
            # Its sockets are the parent's as well, whose replies would come here.
            raise ClientClosedError(
                f"{self._endpoint.address}: this client belongs to process {self._pid}; "
                "make one in each process"
            )

    def _give_back(self, connection: ClientConnection) -> None:
        self._idle.put(connection)
        if self.closed.is_set():
            self._idle.close_all()
