"""The sides of the runtime's measurement, and the check that nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from interfaces.benchmark import (
    CheckItems,
    ClosedLoop,
    ClosedLoopResult,
    Failed,
    LateRequest,
    LateRequestResult,
    Waiting,
    WaitingResult,
)
from interfaces.messages import from_json, to_json
from pipeline import NodeError
from pipeline.benchmark import integrity, own_side
from pipeline.benchmark.side import Side, WindowError

# What a batch takes where the order of events counts: other tests run on the same cores.
_LONG_S = 0.3
_SLEEP = {"backend": "MeasureSleep", "measure_min": 1, "measure_max": 4}
_CLIENTS = ClosedLoop(
    document={"clients": {**_SLEEP, "instance_num": 2, "batching_timeout": 50}},
    clients=4,
    duration_s=0.05,
    data=0.010,
    with_latencies=True,
)
_LATE = LateRequest(
    document={"late": {**_SLEEP, "instance_num": 2, "batching_timeout": 200}},
    busy=2,
    trials=2,
    model_s=_LONG_S,
    late_after_s=0.007,
)
_BEHIND = {**_SLEEP, "instance_num": 1, "batching_timeout": 250}
_WAITING = Waiting(
    document={"behind": _BEHIND},
    waiting_items=1,
    hold_s=0.25,
    wait_s=0.05,
    model_s=0.010,
)
_TOO_FEW = replace(_WAITING, document={"below": {**_BEHIND, "measure_min": 4}}, hold_s=None)


@pytest.fixture
def own() -> Side:
    """Our side in this process."""
    open_pipe, _ = own_side.start()
    return Side(open_pipe)


def test_closed_loop_tells_every_latency_and_every_batch(own: Side) -> None:
    result = own.run(_CLIENTS)
    assert isinstance(result, ClosedLoopResult)
    assert result.items == len(result.latencies_ms) >= 4
    assert min(result.latencies_ms) >= 10
    batches = {int(size): count for size, count in result.batch_sizes.items()}
    assert sum(size * count for size, count in batches.items()) == result.items
    assert max(batches) <= 4
    assert result.cpu_s > 0
    assert result.wall_s <= result.elapsed_s


@pytest.mark.parametrize(("busy", "before"), [(0, [1, 1]), (1, [1]), (2, [1, 1])])
def test_a_late_request_is_alone(own: Side, busy: int, before: list[int]) -> None:
    result = own.run(replace(_LATE, busy=busy))
    assert isinstance(result, LateRequestResult)
    assert len(result.latencies_ms) == 2
    assert result.batches_before == [before, before]


def test_a_request_that_is_not_alone_is_no_late_one(own: Side) -> None:
    # Three of the four items wait for an instance, and the late one comes to them.
    with pytest.raises(WindowError, match="not alone"):
        own.run(replace(_LATE, trials=1, second_items=4))


@pytest.mark.parametrize("window", [_WAITING, replace(_WAITING, waiting_items=2), _TOO_FEW])
def test_items_wait_while_the_cpu_time_is_read(own: Side, window: Waiting) -> None:
    result = own.run(window)
    assert isinstance(result, WaitingResult)
    assert result.batches_begun == 0
    assert result.refused is None
    assert result.wall_s >= 0.05


def test_what_the_pipe_refuses_is_told() -> None:
    def refuse(item: dict[str, Any]) -> None:
        raise ValueError(f"too few: {len(item)}\nmore")

    result = Side(lambda _: refuse).run(_TOO_FEW)
    assert isinstance(result, WaitingResult)
    assert result.refused == "ValueError: too few: 1"


def test_a_wrong_result_ends_the_window() -> None:
    def swap(item: dict[str, Any]) -> None:
        item["result"] = "another one's"

    with pytest.raises(WindowError, match="came back as"):
        Side(lambda _: swap).run(replace(_CLIENTS, clients=1))


def _outcome(number: int) -> dict[str, Any]:
    """What must become of an item."""
    value, failing = integrity.expected(number)
    if value is None:
        return {"error": NodeError(min(failing), integrity.ItemFailedError(number))}
    return {"result": (number, value)}


_GOOD = next(n for n in range(1000) if integrity.expected(n)[0] is not None)
_BAD = next(n for n in range(1000) if integrity.expected(n)[0] is None)


@pytest.mark.parametrize(
    ("number", "item", "kind"),
    [
        (_GOOD, {}, "lost"),
        (_GOOD, {**_outcome(_GOOD), **_outcome(_BAD)}, "result and error"),
        (_GOOD, _outcome(_BAD), "failed without a reason"),
        (_GOOD, {"result": (_GOOD, 1)}, "result of another item"),
        (_BAD, {"result": (_BAD, 1)}, "result in spite of an error"),
        (
            _BAD,
            {"error": NodeError(_outcome(_BAD)["error"].node, integrity.ItemFailedError(_GOOD))},
            "error of another item",
        ),
        (_BAD, {"error": RuntimeError("no node's")}, "failed without a reason"),
    ],
)
def test_integrity_would_find(number: int, item: dict[str, Any], kind: str) -> None:
    faults = integrity.ItemFaults()
    integrity.check_outcome(number, item, faults)
    assert faults.counts == Counter({kind: 1})
    assert faults.examples[0].startswith(f"item {number}: {kind}")


def test_integrity_accepts_what_must_become_of_an_item() -> None:
    faults = integrity.ItemFaults()
    for number in (_GOOD, _BAD):
        integrity.check_outcome(number, _outcome(number), faults)
    assert not faults.counts


def test_integrity_tells_a_configuration_that_cannot_run() -> None:
    request = to_json(CheckItems(items=1, clients=1, instances=0, sample_s=1.0))
    command = [sys.executable, "-m", "pipeline.benchmark.integrity", request]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "instance_num" in from_json(done.stdout, [Failed]).reason
