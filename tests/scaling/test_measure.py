"""A measurement of real servers, small: every image that is sent is told of once."""

from __future__ import annotations

from scaling.measure import CONFIGURED, Point, calibrated, load_of, measure
from scaling.validation import COLUMNS, Numbers


def test_images_go_to_servers_and_are_all_told_of() -> None:
    told: list[str] = []
    points = [Point(2, "round robin", 0.6)]
    run, rows = measure(points, 1, 0.5, 3, told.append, saturated_s=0.5)
    assert {len(row) for row in rows} == {len(COLUMNS)}
    calls = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    load = load_of(points[0], "3/0/0", 0.5)
    assert [window["seed"] for window in run["windows"]] == [load.seed]
    ends = [call["due_s"] for call in calls]
    assert ends == sorted(ends)
    assert ends[-1] < load.warmup_s + load.window_s
    assert {call["outcome"] for call in calls} <= {"answered", "refused"}
    # Each server gets every second image.
    turns = [call["replica"] for call in calls]
    assert turns[::2] == [turns[0]] * len(turns[::2])
    assert turns[1::2] == [1 - turns[0]] * len(turns[1::2])
    answered = [call["latency_ms"] for call in calls if call["outcome"] == "answered"]
    assert min(answered) >= CONFIGURED.batch_time_ms(1)
    assert Numbers.of(answered, 1.0).tp99_ms == max(answered)
    server, hops_ms = calibrated(run["calibrations"][0])
    # A saturated server is no faster than its batches.
    assert server.batch_time_ms(4) >= CONFIGURED.batch_time_ms(4)
    assert min(hops_ms) >= 0
