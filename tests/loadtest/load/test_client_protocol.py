"""Messages between the load test and its client processes survive their JSON lines."""

from __future__ import annotations

import pytest

from interfaces.messages import from_json, to_json
from loadtest.load.client_protocol import (
    ClientConfig,
    End,
    Loaded,
    ProgressReport,
    RequestRow,
    RequestRows,
    Start,
    Stop,
)
from loadtest.settings import LoadSettings


@pytest.mark.parametrize(
    "message",
    [
        ClientConfig(LoadSettings(seed=7, total_number=3), ["a.jpg", "b.jpg"], ["cat", None], 2, 5),
        Loaded(),
        Start(),
        ProgressReport(12.5, 2, 10, 1, 0, "Overloaded: \n full", [1.5, 2.25]),
        Stop(1.25, 2.5),
        RequestRows(
            [RequestRow(1.5, 9.75, [0, 3], 1, "wrong label"), RequestRow(2, 1, [1], 0, "", 0.5)]
        ),
        End(7),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_is_one_line_and_the_same_after_it(message: object) -> None:
    line = to_json(message)
    assert "\n" not in line
    assert from_json(line, [type(message)]) == message


def test_what_is_answered_after_the_window_is_no_throughput_of_it() -> None:
    """An overload leaves a queue; its answers count as requests, but not as those of the window."""
    stop = Stop(10.0, 12.0)
    before, within, late = (
        RequestRow(completed_s, 3000.0, [0, 1], failed, "", 0.0)
        for completed_s, failed in ((9.9, 0), (11.0, 1), (14.0, 0))
    )
    assert stop.takes(late, is_open=True)
    assert not stop.takes(within, is_open=True)
    assert stop.right_images([before, within, late]) == 1
