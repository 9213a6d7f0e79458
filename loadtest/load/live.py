"""What a load is like just now: throughput and TP99 of its last seconds, for the waiting user."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

from loadtest.load.client_protocol import ProgressReport

_SPAN_S = 5.0


class Live:
    """Reports of all client processes as they come, of which the last seconds are kept.

    Args:
        images: in a request.
    """

    def __init__(self, images: int) -> None:
        self._images = images
        self._last: dict[Hashable, ProgressReport] = {}
        self._kept: deque[tuple[float, int, list[float]]] = deque()
        self._start_s: float | None = None

    def add(self, process: Hashable, report: ProgressReport) -> None:
        """Take a report; the first one of a process only says where counting begins."""
        before = self._last.get(process)
        self._last[process] = report
        if before is None:
            self._start_s = report.at_s if self._start_s is None else self._start_s
            return
        answered = report.completed - report.failed - before.completed + before.failed
        self._kept.append((report.at_s, answered, report.recent_ms))
        while self._kept[0][0] < report.at_s - _SPAN_S:
            self._kept.popleft()

    def __str__(self) -> str:
        # Not at the top: it brings scipy, and a refused command line does not wait for that.
        from measurement.statistics import percentile

        latencies_ms = sorted(ms for _, _, recent in self._kept for ms in recent)
        if self._start_s is None or not latencies_ms:
            return "no answer yet"
        end_s = self._kept[-1][0]
        span_s = end_s - max(self._start_s, end_s - _SPAN_S)
        rate = self._images * sum(answered for _, answered, _ in self._kept) / span_s
        return f"{rate:.1f} images/s, TP99 {percentile(latencies_ms, 0.99):.2f} ms"
