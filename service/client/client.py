"""The calls of the service, for many threads at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from idl import inference
from interfaces.service import MAX_FRAME_BYTES, PORT, ServerInfo
from service.client.backoff import delay_s
from service.client.connection import Endpoint
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
from service.client.images import Image, image_bytes
from service.client.pool import ConnectionPool
from service.client.results import Classification, Health, ReplyReader
from service.client.tls import client_context

_TRANSPORTS = ("framed", "unframed")


class Client:
    """A server, as seen by all threads of this process.

    A call gets its own reply or a `ClientError`. It is tried again only where the server cannot
    have begun with it: when it was refused as overload, and when no server listened.

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
        self._pool = ConnectionPool(self._endpoint, max_connections, idle_timeout_s)
        self._replies = ReplyReader(self._endpoint.address)
        self._uuids = itertools.count()

    def classify(
        self,
        image: Image,
        *,
        top_k: int = 1,
        timeout_s: float | None = None,
        with_stage_times: bool = False,
        channel_order: str = "bgr",
    ) -> Classification:
        """What is in an image.

        Args:
            image: a file's path, an encoded image (JPEG, PNG, ...), or a uint8 array of shape
                (height, width, 3), which is sent as PNG.
            top_k: how many classes to name.
            timeout_s: longest time of this call; at most `call_timeout_s`, which None means.
            with_stage_times: whether the server says how long each stage took.
            channel_order: of an array: "bgr", as OpenCV has it, or "rgb".

        Raises:
            InvalidImageError: the image cannot be read or decoded.
            InvalidRequestError: the call passes a limit.
            OverloadedError: the server has too much to do.
            DeadlineExceededError: the time was over.
            InternalServerError: the server failed.
            ClientError: another one, such as ConnectionFailedError.
            ValueError, TypeError: an argument that makes no sense.
        """
        outcome = self.classify_batch(
            [image_bytes(image, channel_order, self._endpoint.max_request_bytes)],
            top_k=top_k,
            timeout_s=timeout_s,
            with_stage_times=with_stage_times,
        )[0]
        if isinstance(outcome, ClientError):
            raise outcome
        return outcome

    def classify_batch(
        self,
        images: Sequence[Image],
        *,
        top_k: int = 1,
        timeout_s: float | None = None,
        with_stage_times: bool = False,
        channel_order: str = "bgr",
    ) -> list[Classification | ClientError]:
        """What is in each of several images, asked for in one call.

        Args:
            images: as for `classify`, whose other arguments these are, too.
            top_k: how many classes to name.
            timeout_s: longest time of this call.
            with_stage_times: whether the server says how long each stage took.
            channel_order: of arrays.

        Returns:
            One outcome an image, in their order: its Classification, or the error that `classify`
            would raise. An image that fails does not touch its neighbours.

        Raises:
            ClientError: the call as a whole has no result.
            ValueError, TypeError: an argument that makes no sense.
        """
        deadline = self._deadline(timeout_s)
        outcomes: list[Classification | ClientError | None] = []
        requests: list[Any] = []
        for image in images:
            try:
                data = image_bytes(image, channel_order, self._endpoint.max_request_bytes)
            except ClientError as error:
                outcomes.append(error)
                continue
            outcomes.append(None)
            requests.append(inference.InferenceParams(uuid=f"{next(self._uuids)}", data=data))
        answers: list[Classification | ClientError] = []
        if requests:
            results = self._call(
                "infer_images",
                lambda: {
                    "requests": requests,
                    "options": inference.InferOptions(
                        top_k=top_k,
                        timeout_ms=deadline.remaining_ms,
                        with_stage_times=with_stage_times,
                    ),
                },
                deadline,
            )
            uuids = [request.uuid for request in requests]
            answers = self._replies.classifications(results, uuids, top_k)
        in_order = iter(answers)
        return [next(in_order) if outcome is None else outcome for outcome in outcomes]

    def ping(self, *, timeout_s: float | None = None) -> None:
        """Return once the server has answered; ClientError if it does not."""
        self._call("ping", dict, self._deadline(timeout_s))

    def health(self, *, timeout_s: float | None = None) -> Health:
        """Whether the server can take requests; ClientError if it does not answer."""
        return self._replies.health(self._call("health", dict, self._deadline(timeout_s)))

    def server_info(self, *, timeout_s: float | None = None) -> ServerInfo:
        """Which server answers; ClientError if none does."""
        return self._replies.server_info(self._call("server_info", dict, self._deadline(timeout_s)))

    def close(self) -> None:
        """Close the connections; those of calls under way when these are done. May be repeated."""
        self._pool.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _deadline(self, timeout_s: float | None) -> CallDeadline:
        if timeout_s is None:
            timeout_s = self._call_timeout_s
        _check_above_0("timeout_s", timeout_s)
        return CallDeadline(min(timeout_s, self._call_timeout_s), self._endpoint.address)

    def _call(
        self, method: str, arguments: Callable[[], dict[str, Any]], deadline: CallDeadline
    ) -> Any:
        """The result of a call, which is tried again where that is safe."""
        for attempt in itertools.count():
            try:
                return self._success(method, self._pool.call(method, arguments, deadline))
            except OverloadedError as error:
                refusal: ClientError = error
                wait_s = delay_s(attempt, error.retry_after_ms)
            except ConnectionFailedError as error:
                if not error.refused:
                    raise
                refusal = error
                wait_s = delay_s(attempt)
            # A try that begins at the deadline would only hide why the last one failed.
            if attempt >= self._retries or wait_s >= deadline.remaining_s:
                raise refusal
            if self._pool.closed.wait(wait_s):
                raise ClientClosedError(
                    f"{self._endpoint.address}: this client was closed during a call"
                ) from refusal
        raise AssertionError("counting ends with a result or an error")

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


def _check_above_0(name: str, value_s: float) -> None:
    # Sockets and locks take no longer timeouts than this.
    if not 0 < value_s <= 1e6:
        raise ValueError(f"{name} must be above 0 and at most 1,000,000 seconds, got {value_s}")
