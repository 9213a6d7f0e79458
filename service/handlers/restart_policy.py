"""When an instance or engine counts as broken, and how often it is rebuilt."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RestartPolicy:
    """Rebuilds what broke after waits that double, since it may need time or stay broken.

    Attributes:
        failures: batches in a row without any result, although no input is known to be at fault,
            after which it is tried with an input that has worked before; if that fails, too,
            it counts as broken.
        first_wait_s: pause before the first attempt to rebuild it.
        longest_wait_s: pause before each attempt in the end.
        stuck_s: a batch that takes longer, and ten times as long as usual, counts as stuck; 0 for
            never.
    """

    failures: int = 3
    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0
    stuck_s: float = 10.0

    def wait_s(self, attempt: int) -> float:
        """The pause before an attempt; the first one is number 1."""
        # Beyond 2^32 the power says nothing more, and would overflow some day.
        return min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(attempt - 1, 32))


DEFAULT_POLICY = RestartPolicy()
