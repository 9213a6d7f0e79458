"""What a waiting user is told of the load while it runs."""

from __future__ import annotations

from loadtest.load.client_protocol import ProgressReport
from loadtest.load.live import Live


def _report(at_s: float, completed: int, failed: int, recent_ms: list[float]) -> ProgressReport:
    return ProgressReport(at_s, 1, completed, failed, 0, "", recent_ms)


def test_throughput_and_tp99_are_those_of_all_processes() -> None:
    live = Live(2)
    assert str(live) == "no answer yet"
    for process in (1, 2):
        live.add(process, _report(100.0, 500, 0, [9.0]))
    assert str(live) == "no answer yet"  # what came before the first report was warm-up
    live.add(1, _report(101.0, 530, 10, [1.0] * 98))
    live.add(2, _report(101.0, 540, 0, [50.0, 60.0]))
    # 20 and 40 requests of two images in one second.
    assert str(live) == "120.0 images/s, TP99 60.00 ms"


def test_what_is_long_ago_does_not_count() -> None:
    live = Live(1)
    for second in range(20):
        busy = second < 10
        live.add(1, _report(100.0 + second, 100 * min(second, 9), 0, [99.0] if busy else [2.0]))
    assert str(live) == "0.0 images/s, TP99 2.00 ms"
