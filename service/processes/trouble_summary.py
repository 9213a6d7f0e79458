"""One log line every 10 s while calls or images do not get what they ask for."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from interfaces.stats import Stats, since
from service.call_counts import OK
from service.logs.formats import Event
from service.logs.rate_limited import PERIOD_S

_log = logging.getLogger(__name__)


class TroubleSummary:
    """Sums up what was refused, has expired or has failed since the last line.

    Args:
        period_s: from one look at the counts to the next.

    Attributes:
        due_s: when that is, on the monotonic clock.
    """

    def __init__(self, period_s: float = PERIOD_S) -> None:
        self._period_s = period_s
        self._before = Stats()
        self._before_s = time.monotonic()
        self.due_s = self._before_s + period_s

    def is_due(self) -> bool:
        """Whether to look at the counts now; the next time is a period later then."""
        now_s = time.monotonic()
        if now_s < self.due_s:
            return False
        self.due_s = now_s + self._period_s
        return True

    def tell(self, counted: Stats) -> None:
        """Write the line, if there is anything to say.

        Args:
            counted: since the server started.
        """
        new, now_s = since(counted, self._before), time.monotonic()
        period_s, self._before_s, self._before = now_s - self._before_s, now_s, counted
        calls = _troubles(new.calls_by_outcome())
        images = _troubles(new.images)
        if calls or images:
            found = {"calls": calls, "refusals": _troubles(new.refusals), "images": images}
            told = {name: counts or None for name, counts in found.items()}
            _log.warning(
                Event("refused, expired or failed", {"period_s": round(period_s, 1), **told})
            )


def _troubles(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if name != OK and count > 0}
