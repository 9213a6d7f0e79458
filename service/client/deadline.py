"""When a call has to be over."""

from __future__ import annotations

import time

from service.client.errors import DeadlineExceededError

# Thrift's i32.
_MAX_TIMEOUT_MS = 2**31 - 1


class CallDeadline:
    """The end of one call's time, retries included.

    Args:
        timeout_s: how long the call may take from now on.
        address: the server, for messages.
    """

    def __init__(self, timeout_s: float, address: str) -> None:
        self._timeout_s = timeout_s
        self._address = address
        self._at_s = time.monotonic() + timeout_s

    @property
    def remaining_s(self) -> float:
        """What is left, at least 0."""
        return max(0.0, self._at_s - time.monotonic())

    @property
    def remaining_ms(self) -> int:
        """What is left as the wire has it, at least 1."""
        return min(_MAX_TIMEOUT_MS, max(1, int(self.remaining_s * 1000)))

    def check(self, waiting_for: str) -> float:
        """What is left, in seconds and above 0.

        Raises:
            DeadlineExceededError: nothing is left.
        """
        remaining_s = self.remaining_s
        if remaining_s <= 0:
            raise self.exceeded(waiting_for)
        return remaining_s

    def exceeded(self, waiting_for: str) -> DeadlineExceededError:
        """The error that says what the time ran out on."""
        return DeadlineExceededError(
            f"{self._address}: the call's {self._timeout_s:g} s were over {waiting_for}"
        )
