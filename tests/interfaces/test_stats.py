"""Numbers of servers: added up over processes, compared over time, and on the wire."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from idl import inference
from interfaces import stats as stats_module
from interfaces.stats import (
    BOUNDS_MS,
    EngineProcessStats,
    GpuStats,
    Histogram,
    NodeStats,
    Stats,
    WorkerStats,
    added,
    since,
    without_now,
)
from interfaces.structs import from_struct, to_struct
from service.processes.stats_report import (
    Report,
    decode_stats,
    encode_stats,
    read_report,
    report_file,
)


def histogram(*at: int) -> Histogram:
    return Histogram([at.count(i) for i in range(len(BOUNDS_MS) + 1)], float(sum(at)))


FIRST = Stats(
    uptime_s=10.0,
    calls={"ping": {"ok": 1}, "infer_batch": {"ok": 5, "overloaded": 2}},
    images={"ok": 5},
    latencies={"infer_batch": histogram(1, 1, 2)},
    connections=3,
    connections_opened=7,
    nodes={"cnn": NodeStats(8, 1, 4.0, 2.0, {1: 2, 4: 1}, {"full": 3}, 0, 2, 2, 1)},
    workers=[WorkerStats(0, 11, "", 3, 0, 8)],
    engine_process=EngineProcessStats(alive=True, pid=5, started_at_s=1.5),
    gpus=[GpuStats(0, "GPU-1", "H", 0.5, 10, 20)],
)
SECOND = Stats(
    uptime_s=12.0,
    calls={"infer_batch": {"ok": 1, "internal_error": 1}},
    images={"disconnected": 2},
    latencies={"infer_batch": histogram(2), "infer_images": histogram(26)},
    connections=1,
    nodes={
        "cnn": NodeStats(2, 0, 1.0, 1.0, {4: 1, 8: 1}, {"idle": 2}, 1, 2, 1, 0),
        "cpu": NodeStats(items=3),
    },
    workers=[WorkerStats(1, 12, "broken", 1, 0, 2)],
)


def test_the_numbers_of_two_processes_are_added() -> None:
    total = added(FIRST, SECOND)
    assert total.calls == {
        "ping": {"ok": 1},
        "infer_batch": {"ok": 6, "overloaded": 2, "internal_error": 1},
    }
    assert total.calls_by_outcome() == {"ok": 7, "overloaded": 2, "internal_error": 1}
    assert total.images == {"ok": 5, "disconnected": 2}
    assert total.latencies == {
        "infer_batch": histogram(1, 1, 2, 2),
        "infer_images": histogram(26),
    }
    assert (total.connections, total.connections_opened) == (4, 7)
    assert total.nodes["cpu"] == NodeStats(items=3)
    assert total.nodes["cnn"] == NodeStats(
        10, 1, 5.0, 3.0, {1: 2, 4: 2, 8: 1}, {"full": 3, "idle": 2}, 1, 4, 3, 1
    )
    assert [worker.pid for worker in total.workers] == [11, 12]
    assert total.engine_process == FIRST.engine_process
    assert added(SECOND, FIRST).engine_process == FIRST.engine_process
    assert total.bounds_ms == list(BOUNDS_MS)
    assert added(Stats(), FIRST) == FIRST


def test_of_a_process_that_is_gone_only_counts_remain() -> None:
    left = without_now(FIRST)
    assert (left.calls, left.latencies) == (FIRST.calls, FIRST.latencies)
    assert (left.connections, left.connections_opened, left.uptime_s) == (0, 7, 0.0)
    assert left.nodes == {"cnn": NodeStats(8, 1, 4.0, 2.0, {1: 2, 4: 1}, {"full": 3}, 0)}
    assert (left.workers, left.gpus, left.engine_process) == ([], [], None)


def test_what_has_happened_between_two_of_them() -> None:
    assert since(added(FIRST, SECOND), FIRST).calls["infer_batch"] == {
        "ok": 1,
        "overloaded": 0,
        "internal_error": 1,
    }
    done = since(added(FIRST, SECOND), SECOND)
    assert done.latencies["infer_batch"] == FIRST.latencies["infer_batch"]
    assert done.nodes["cnn"].batches_by_size == {1: 2, 4: 1, 8: 0}
    # What is of now stays as it is.
    assert (done.connections, done.nodes["cnn"].working_instances) == (4, 3)


def test_quantiles_lie_within_their_bucket() -> None:
    bounds_ms = [10.0, 20.0, 40.0]
    times = Histogram([0, 4, 4, 0], 160.0)
    assert times.quantile_ms(0.5, bounds_ms) == 20.0
    assert times.quantile_ms(0.75, bounds_ms) == 30.0
    assert times.quantile_ms(0.25, bounds_ms) == 15.0
    assert Histogram([0, 0, 0, 2], 200.0).quantile_ms(0.5, bounds_ms) == 40.0
    assert Histogram([0, 0, 0, 0], 0.0).quantile_ms(0.5, bounds_ms) is None
    assert times.mean_ms == 20.0


@pytest.mark.parametrize("stats", [FIRST, SECOND, Stats()])
def test_nothing_is_lost_on_the_wire(stats: Stats) -> None:
    assert decode_stats(encode_stats(stats)) == stats


def test_a_report_comes_whole() -> None:
    """One of several hundred kilobytes, too, which no message could carry."""
    large = replace(FIRST, nodes={f"node {i}": NodeStats(items=i) for i in range(4_000)})
    assert len(encode_stats(large)) > 300_000
    info = inference.ServerInfo(handler="null", engine="none", pid=4)
    for report in (Report(large, SECOND, info), Report(FIRST, None, None)):
        assert read_report(report_file(report)) == report


def test_the_idl_has_the_same_fields() -> None:
    for name in ("Stats", "NodeStats", "WorkerStats", "EngineProcessStats", "GpuStats"):
        struct, kind = getattr(inference, name), getattr(stats_module, name)
        assert [entry.name for entry in fields(kind)] == [
            spec[1] for _, spec in sorted(struct.thrift_spec.items())
        ]


def test_a_struct_that_lacks_something_is_refused() -> None:
    struct = to_struct(FIRST, inference)
    struct.nodes["cnn"].items = None
    with pytest.raises(ValueError, match="NodeStats lacks 'items'"):
        from_struct(Stats, struct)
    struct = to_struct(FIRST, inference)
    struct.engine_process = None
    assert from_struct(Stats, struct) == replace(FIRST, engine_process=None)
    struct.calls = ["ping"]
    with pytest.raises(ValueError, match="got list"):
        from_struct(Stats, struct)
