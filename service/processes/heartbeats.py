"""When a process that gives no sign of life counts as hung."""

from __future__ import annotations

import math
import time

# A process that lets so many pass without a sign of life hangs.
BEATS = 10


class Heartbeats:
    """The beats at which another process is asked for a sign of life, or has to give one.

    Beats that were missed are counted, and no time is measured: while the process that counts does
    not run itself, because it is stopped, the host is suspended or has other things to do, no beat
    passes, and no other process is blamed for that.

    Args:
        hang_timeout_s: how long the other process may give no sign of life; 0 for no limit.

    Attributes:
        pause_s: from one beat to the next; infinite where there are none.
        next_s: when the next one is due, on the monotonic clock.
    """

    def __init__(self, hang_timeout_s: float) -> None:
        self.pause_s = hang_timeout_s / BEATS or math.inf
        self.next_s = time.monotonic() + self.pause_s

    def is_due(self) -> bool:
        """Whether it is time for a beat; then the next one is a whole pause away."""
        now_s = time.monotonic()
        if now_s < self.next_s:
            return False
        self.next_s = now_s + self.pause_s
        return True
