"""Clients of server processes, and both ends of the channel between supervisor and worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from thriftpy2.rpc import make_client

from idl import inference
from service.processes.control_channel import ControlChannel
from service.processes.worker_messages import WORKER_MESSAGES

TIMEOUT_S = 30


@pytest.fixture
def ends() -> Iterator[tuple[ControlChannel, ControlChannel]]:
    """The supervisor's end, and the worker's."""
    ours, theirs = ControlChannel.pair(WORKER_MESSAGES)
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
def connect() -> Iterator[Callable[[int], Any]]:
    """Makes clients of a port; they are closed at the end of the test."""
    with ExitStack() as stack:

        def make(port: int) -> Any:
            client = make_client(
                inference.InferenceService, "127.0.0.1", port, timeout=TIMEOUT_S * 1000
            )
            return stack.enter_context(closing(client))

        yield make
