"""Waiting for what other threads do."""

from __future__ import annotations

from collections.abc import Callable

from tests.robustness.checking_clients import wait_until

_TIMEOUT_S = 60.0


def until(condition: Callable[[], bool]) -> None:
    assert wait_until(condition, _TIMEOUT_S, 0.01)
