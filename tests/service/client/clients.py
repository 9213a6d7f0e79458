"""Both clients behind the same calls, for tests that both have to pass."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from inspect import iscoroutinefunction
from types import TracebackType
from typing import Any

import pytest

from service.client import AsyncClient, Client
from tests.serving import TIMEOUT_S


class LoopClient:
    """An AsyncClient in an event loop that a thread runs; its calls block, from any thread."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self._client = AsyncClient(*arguments, **settings)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._client, name)
        if not iscoroutinefunction(value):
            return value
        return lambda *arguments, **options: self._run(value(*arguments, **options))

    def __enter__(self) -> LoopClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._run(self._client.close())
        self._run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(TIMEOUT_S)
        self._loop.close()

    def _run(self, call: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result(TIMEOUT_S)


BOTH = pytest.mark.parametrize("kind", [Client, LoopClient], ids=["blocking", "asyncio"])
