"""What each worker gets of what the server has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.handlers.handler_settings import HandlerSettings
from service.options.server_settings import ServerSettings
from service.processes.placement import Placement, share_of_cores


@pytest.mark.parametrize(
    ("devices", "workers", "shares"),
    [
        ((0, 1), 1, [(0, 1)]),
        ((0, 1), 2, [(0,), (1,)]),
        ((3, 1, 2), 2, [(3, 2), (1,)]),
        ((0, 1), 5, [(0,), (1,), (0,), (1,), (0,)]),
        ((7,), 2, [(7,), (7,)]),
        ((), 2, [(), ()]),
    ],
)
def test_workers_share_the_gpus_out_or_share_gpus(
    devices: tuple[int, ...], workers: int, shares: list[tuple[int, ...]]
) -> None:
    whole = HandlerSettings(devices=devices, engine="torch")
    parts = [Placement(i, workers).handler_settings(whole) for i in range(workers)]
    assert [part.devices for part in parts] == shares
    assert {part.engine for part in parts} == {"torch"}


@given(workers=st.integers(1, 64), max_queue=st.integers(0, 10_000))
def test_the_parts_of_the_queue_add_up(workers: int, max_queue: int) -> None:
    whole = ServerSettings(workers=workers, max_queue=max_queue)
    parts = [Placement(i, workers).server_settings(whole).max_queue for i in range(workers)]
    assert sum(parts) == max_queue
    assert max(parts) - min(parts) <= 1


@given(cores=st.integers(1, 512), workers=st.integers(1, 512))
def test_workers_never_count_on_more_cores_than_there_are(cores: int, workers: int) -> None:
    share = share_of_cores(cores, workers)
    assert share >= 1
    assert share * workers <= max(cores, workers)
