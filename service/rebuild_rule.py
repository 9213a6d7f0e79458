"""When what runs the model counts as broken, and how often it is made anew."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RebuildRule:
    """The waits double, as in any exponential backoff: what broke may need time, or never return.

    Attributes:
        failures: batches in a row of which nothing came through, although no input was at fault,
            after which it counts as broken.
        first_wait_s: pause before the first attempt to make it anew.
        longest_wait_s: pause before each attempt in the end.
    """

    failures: int = 3
    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0

    def wait_s(self, attempt: int) -> float:
        """The pause before an attempt; the first one is number 1."""
        # Beyond 2^32 the power says nothing more, and would overflow some day.
        return min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(attempt - 1, 32))


DEFAULT_RULE = RebuildRule()
