"""What the blocking and the asynchronous client have in common: settings, retries, results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from idl import inference
from interfaces.service import MAX_FRAME_BYTES, PORT
from service.client.backoff import delay_s
from service.client.deadline import CallDeadline
from service.client.errors import (
    ClientClosedError,
    ClientError,
    ConnectionFailedError,
    DeadlineExceededError,
    InternalServerError,
    InvalidReplyError,
    InvalidRequestError,
    OverloadedError,
)
from service.client.exchange import ConnectionState, Endpoint
from service.client.results import ReplyReader
from service.client.tls import client_context

_TRANSPORTS = ("framed", "unframed")


class BaseClient:
    """A server, as a client sees it.

    A call gets its own reply or a `ClientError`. It is tried again where the server cannot have
    begun with it: when it was refused as overload, and when no server listened; and once, on a
    fresh connection, when one that was kept from an earlier call ends without a byte of the reply.

    Args:
        host: the server's name or address.
        port: its port.
        connect_timeout_s: longest time until a connection stands.
        call_timeout_s: longest time of a call, with waiting for a connection and all retries.
            The server is told what is left, so that it does not work on abandoned calls.
        idle_timeout_s: a connection that was not used for longer is closed at the next call. Keep
            it below the server's --idle-timeout-s.
        max_connections: connections at a time; further calls wait for one.
        retries: how often a call is tried again.
        transport: "framed" or "unframed".
        max_request_bytes: size of the largest call; what the server's --max-frame-bytes is.
        max_reply_bytes: size of the largest reply.
        tls_ca: file of the authorities that the server's certificate may come from. This and the
            next two turn TLS on.
        tls_cert: file of the client's certificate chain, where the server asks for one.
        tls_key: file of its private key.
        tls_server_name: the name in the server's certificate; None for `host`.

    Raises:
        ValueError: a setting that cannot work.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = PORT,
        *,
        connect_timeout_s: float = 5.0,
        call_timeout_s: float = 30.0,
        idle_timeout_s: float = 300.0,
        max_connections: int = 16,
        retries: int = 4,
        transport: str = "framed",
        max_request_bytes: int = MAX_FRAME_BYTES,
        max_reply_bytes: int = MAX_FRAME_BYTES,
        tls_ca: str | Path | None = None,
        tls_cert: str | Path | None = None,
        tls_key: str | Path | None = None,
        tls_server_name: str | None = None,
    ) -> None:
        if transport not in _TRANSPORTS:
            raise ValueError(f"transport must be framed or unframed, got {transport!r}")
        if not 1 <= port <= 65535:
            raise ValueError(f"port must be 1 to 65535, got {port}")
        _check_above_0("connect_timeout_s", connect_timeout_s)
        _check_above_0("call_timeout_s", call_timeout_s)
        _check_above_0("idle_timeout_s", idle_timeout_s)
        for name, count, least in (
            ("max_connections", max_connections, 1),
            ("retries", retries, 0),
            ("max_request_bytes", max_request_bytes, 1),
            ("max_reply_bytes", max_reply_bytes, 1),
        ):
            if count < least:
                raise ValueError(f"{name} must be at least {least}, got {count}")
        self._endpoint = Endpoint(
            host=host,
            port=port,
            framed=transport == "framed",
            connect_timeout_s=connect_timeout_s,
            max_request_bytes=max_request_bytes,
            max_reply_bytes=max_reply_bytes,
            tls=client_context(
                *(None if f is None else str(f) for f in (tls_ca, tls_cert, tls_key))
            ),
            tls_server_name=tls_server_name or host,
        )
        self._call_timeout_s = call_timeout_s
        self._retries = retries
        self._replies = ReplyReader(self._endpoint.address)
        self._make_pool(max_connections, idle_timeout_s)

    def _make_pool(self, max_connections: int, idle_timeout_s: float) -> None:
        raise NotImplementedError

    def _deadline(self, timeout_s: float | None) -> CallDeadline:
        if timeout_s is None:
            timeout_s = self._call_timeout_s
        _check_above_0("timeout_s", timeout_s)
        return CallDeadline(min(timeout_s, self._call_timeout_s), self._endpoint.address)

    def _pause_s(self, error: ClientError, attempt: int, deadline: CallDeadline) -> float:
        """How long to wait before a call is tried again.

        Raises:
            ClientError: it is not tried again; this is the one that was given.
        """
        if isinstance(error, OverloadedError):
            pause_s = delay_s(attempt, error.retry_after_ms)
        elif isinstance(error, ConnectionFailedError) and error.refused:
            pause_s = delay_s(attempt)
        else:
            raise error
        # A try that begins at the deadline would only hide why the last one failed.
        if attempt >= self._retries or pause_s >= deadline.remaining_s:
            raise error
        return pause_s

    def _closed_during_call(self) -> ClientClosedError:
        return ClientClosedError(f"{self._endpoint.address}: this client was closed during a call")

    def _success(self, method: str, result: Any) -> Any:
        """What a result's struct holds; its declared exception is raised as this package's."""
        for number, (_, name, *_) in result.thrift_spec.items():
            value = getattr(result, name)
            if value is None:
                continue
            if number == 0:
                return value
            raise self._declared(value)
        if 0 in result.thrift_spec:
            raise InvalidReplyError(
                f"{self._endpoint.address}: {method} came back without a result"
            )
        return None

    def _declared(self, error: Any) -> ClientError:
        message = f"{self._endpoint.address}: {error.message}"
        if isinstance(error, inference.Overloaded):
            return OverloadedError(message, max(0, error.retry_after_ms or 0))
        if isinstance(error, inference.DeadlineExceeded):
            return DeadlineExceededError(message)
        if isinstance(error, inference.InternalError):
            error_id = error.error_id or ""
            return InternalServerError(f"{message} {error_id}".rstrip(), error_id)
        return InvalidRequestError(message)


def no_arguments(_: ConnectionState) -> dict[str, Any]:
    """The arguments of a method that has none."""
    return {}


def _check_above_0(name: str, value_s: float) -> None:
    # Sockets and locks take no longer timeouts than this.
    if not 0 < value_s <= 1e6:
        raise ValueError(f"{name} must be above 0 and at most 1,000,000 seconds, got {value_s}")
