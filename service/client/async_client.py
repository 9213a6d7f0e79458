"""The calls of the service, for the tasks of an event loop."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from interfaces.service import ServerInfo
from interfaces.stats import Stats
from service.client.async_pool import AsyncConnectionPool
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
from service.client.images import Image, encoded_images, is_encoded
from service.client.results import Classification, Health
from service.client.waiting import is_done_within


class AsyncClient(BaseClient):
    """A server, as seen by all tasks of one event loop.

    Its settings are those of `BaseClient`, and its calls those of `Client`. A call that is
    cancelled ends at once, with its connection, and takes nothing from other calls. Close the
    client in the end, or use it in `async with`.
    """

    async def classify(
        self,
        image: Image,
        *,
        top_k: int = 1,
        timeout_s: float | None = None,
        with_stage_times: bool = False,
        channel_order: str = "bgr",
        traceparent: str | None = None,
    ) -> Classification:
        """What is in an image; `Client.classify` has arguments and errors."""
        outcomes = await self.classify_batch(
            [image],
            top_k=top_k,
            timeout_s=timeout_s,
            with_stage_times=with_stage_times,
            channel_order=channel_order,
            traceparent=traceparent,
        )
        if isinstance(outcomes[0], ClientError):
            raise outcomes[0]
        return outcomes[0]

    async def classify_batch(
        self,
        images: Sequence[Image],
        *,
        top_k: int = 1,
        timeout_s: float | None = None,
        with_stage_times: bool = False,
        channel_order: str = "bgr",
        traceparent: str | None = None,
    ) -> list[Classification | ClientError]:
        """What is in each of several images; `Client.classify_batch` has the rest.

        Images that have to be read or encoded first are so in a thread, and not in the loop's.
        """
        deadline = self._deadline(timeout_s)
        encoded = await self._encoded(images, channel_order, deadline)
        call = ClassifyCall(encoded, top_k, with_stage_times, traceparent, deadline)
        results: Any = []
        if call.has_images:
            try:
                results = await self._call(METHOD, deadline, call.arguments)
            except CallTooLargeError:
                raise
            except InvalidRequestError:
                if not (call.may_ask_too_much and call.lower_top_k(await self._classes(deadline))):
                    raise
                results = await self._call(METHOD, deadline, call.arguments)
        return call.outcomes(results, self._replies)

    async def ping(self, *, timeout_s: float | None = None) -> None:
        """Return once the server has answered; ClientError if it does not."""
        await self._call("ping", self._deadline(timeout_s))

    async def health(self, *, timeout_s: float | None = None) -> Health:
        """Whether the server can take requests; ClientError if it does not answer."""
        return self._replies.health(await self._call("health", self._deadline(timeout_s)))

    async def server_info(self, *, timeout_s: float | None = None) -> ServerInfo:
        """Which server answers; ClientError if none does."""
        return await self._server_info(self._deadline(timeout_s))

    async def stats(self, *, timeout_s: float | None = None) -> Stats:
        """What the whole server has done and does; ClientError if it does not answer."""
        return self._replies.stats(await self._call("stats", self._deadline(timeout_s)))

    async def close(self) -> None:
        """Close the connections; those of calls under way when these are done. May be repeated."""
        await self._pool.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _make_pool(self, max_connections: int, idle_timeout_s: float) -> None:
        self._pool = AsyncConnectionPool(self._endpoint, max_connections, idle_timeout_s)

    async def _encoded(
        self, images: Sequence[Image], channel_order: str, deadline: CallDeadline
    ) -> list[bytes | ClientError]:
        max_bytes = self._endpoint.max_request_bytes
        if all(map(is_encoded, images)):
            return encoded_images(images, channel_order, max_bytes)
        reading = asyncio.ensure_future(
            asyncio.to_thread(encoded_images, images, channel_order, max_bytes)
        )
        if not await is_done_within(reading, deadline.remaining_s):
            raise deadline.exceeded("while its images were read")
        return reading.result()

    async def _server_info(self, deadline: CallDeadline) -> ServerInfo:
        return self._replies.server_info(await self._call("server_info", deadline))

    async def _classes(self, deadline: CallDeadline) -> int | None:
        """How many classes the server has; None where it gives no answer to that."""
        try:
            return (await self._server_info(deadline)).classes
        except DeadlineExceededError:
            raise
        except ClientError:
            return None

    async def _call(
        self,
        method: str,
        deadline: CallDeadline,
        arguments: Callable[[ConnectionState], dict[str, Any]] = no_arguments,
    ) -> Any:
        """The result of a call, which is tried again where that is safe."""
        for attempt in itertools.count():
            try:
                return self._success(method, await self._pool.call(method, arguments, deadline))
            except ClientError as error:
                pause_s = self._pause_s(error, attempt, deadline)
                refusal = error
            if await self._pool.closed_within(pause_s):
                raise self._closed_during_call() from refusal
        raise AssertionError("counting ends with a result or an error")
