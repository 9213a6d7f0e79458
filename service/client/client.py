"""The calls of the service, for many threads at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from interfaces.service import ServerInfo
from interfaces.stats import Stats
from service.client.base import BaseClient, no_arguments
from service.client.classify_call import METHOD, ClassifyCall
from service.client.deadline import CallDeadline
from service.client.errors import (
    CallTooLargeError,
    ClientError,
    DeadlineExceededError,
    InvalidRequestError,
)
from service.client.exchange import ConnectionState
from service.client.images import Image, encoded_images
from service.client.pool import ConnectionPool
from service.client.results import Classification, Health


class Client(BaseClient):
    """A server, as seen by all threads of this process.

    Its settings are those of `BaseClient`. Close it in the end, or use it in `with`.
    """

    def classify(
        self,
        image: Image,
        *,
        top_k: int = 1,
        timeout_s: float | None = None,
        with_stage_times: bool = False,
        channel_order: str = "bgr",
        traceparent: str | None = None,
    ) -> Classification:
        """What is in an image.

        Args:
            image: a file's path; an encoded image (JPEG, PNG, ...); a binary file object, which is
                read to its end and left open; an image of Pillow's, whose pixels are taken as they
                are, without EXIF's orientation; or a uint8 array of shape (height, width, 3). The
                last two are sent as PNG.
            top_k: how many classes to name; all of them where there are fewer.
            timeout_s: longest time of this call; at most `call_timeout_s`, which None means.
            with_stage_times: whether the server says how long each stage took.
            channel_order: of an array: "bgr", as OpenCV has it, or "rgb".
            traceparent: the caller's span, as in the W3C's Trace Context, to which a server that
                sends traces adds its own.

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
            [image],
            top_k=top_k,
            timeout_s=timeout_s,
            with_stage_times=with_stage_times,
            channel_order=channel_order,
            traceparent=traceparent,
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
        traceparent: str | None = None,
    ) -> list[Classification | ClientError]:
        """What is in each of several images, asked for in one call.

        Args:
            images: as for `classify`, whose other arguments these are, too.
            top_k: how many classes to name.
            timeout_s: longest time of this call.
            with_stage_times: whether the server says how long each stage took.
            channel_order: of arrays.
            traceparent: the caller's span.

        Returns:
            One outcome an image, in their order: its Classification, or the error that `classify`
            would raise. An image that fails does not touch its neighbours.

        Raises:
            ClientError: the call as a whole has no result.
            ValueError, TypeError: an argument that makes no sense.
        """
        deadline = self._deadline(timeout_s)
        encoded = encoded_images(images, channel_order, self._endpoint.max_request_bytes)
        call = ClassifyCall(encoded, top_k, with_stage_times, traceparent, deadline)
        results: Any = []
        if call.has_images:
            try:
                results = self._call(METHOD, deadline, call.arguments)
            except CallTooLargeError:
                raise
            except InvalidRequestError:
                if not (call.may_ask_too_much and call.lower_top_k(self._classes(deadline))):
                    raise
                results = self._call(METHOD, deadline, call.arguments)
        return call.outcomes(results, self._replies)

    def ping(self, *, timeout_s: float | None = None) -> None:
        """Return once the server has answered; ClientError if it does not."""
        self._call("ping", self._deadline(timeout_s))

    def health(self, *, timeout_s: float | None = None) -> Health:
        """Whether the server can take requests; ClientError if it does not answer."""
        return self._replies.health(self._call("health", self._deadline(timeout_s)))

    def server_info(self, *, timeout_s: float | None = None) -> ServerInfo:
        """Which server answers; ClientError if none does."""
        return self._server_info(self._deadline(timeout_s))

    def stats(self, *, timeout_s: float | None = None) -> Stats:
        """What the whole server has done and does; ClientError if it does not answer."""
        return self._replies.stats(self._call("stats", self._deadline(timeout_s)))

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

    def _make_pool(self, max_connections: int, idle_timeout_s: float) -> None:
        self._pool = ConnectionPool(self._endpoint, max_connections, idle_timeout_s)

    def _server_info(self, deadline: CallDeadline) -> ServerInfo:
        return self._replies.server_info(self._call("server_info", deadline))

    def _classes(self, deadline: CallDeadline) -> int | None:
        """How many classes the server has; None where it gives no answer to that."""
        try:
            return self._server_info(deadline).classes
        except DeadlineExceededError:
            raise
        except ClientError:
            return None

    def _call(
        self,
        method: str,
        deadline: CallDeadline,
        arguments: Callable[[ConnectionState], dict[str, Any]] = no_arguments,
    ) -> Any:
        """The result of a call, which is tried again where that is safe."""
        for attempt in itertools.count():
            try:
                return self._success(method, self._pool.call(method, arguments, deadline))
            except ClientError as error:
                pause_s = self._pause_s(error, attempt, deadline)
                refusal = error
            if self._pool.closed.wait(pause_s):
                raise self._closed_during_call() from refusal
        raise AssertionError("counting ends with a result or an error")
