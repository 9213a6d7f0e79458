"""From stage times to the parts of a request's latency."""

from __future__ import annotations

import pytest

from loadtest.records.run import StagedRequest, StageRun
from loadtest.report.stage_summary import RPC, by_kind, stage_parts


def _parts(stages_ms: dict[str, float], latency_ms: float = 10.0) -> dict[str, tuple[str, float]]:
    run = StageRun("pipeline", 10, [], [StagedRequest(latency_ms, stages_ms)], "")
    return {part.name: (part.kind, round(part.mean_ms, 6)) for part in stage_parts(run)}


def test_what_the_server_does_not_tell_is_the_call() -> None:
    assert _parts({"net.queue": 2.0, "net.forward": 5.0}) == {
        "net.queue": ("queue", 2.0),
        "net.forward": ("other", 5.0),
        RPC: (RPC, 3.0),
    }


def test_backends_are_taken_out_of_their_nodes_forward() -> None:
    assert _parts(
        {
            "net.queue": 1.0,
            "net.forward": 6.0,
            "net.DecodeTensor": 2.0,
            "net.ResizeTensor": 0.5,
            "net.TensorrtTensor.copy": 0.25,
            "net.TensorrtTensor.infer": 3.0,
        }
    ) == {
        "net.queue": ("queue", 1.0),
        "net.forward, rest": ("other", 0.25),
        "net.DecodeTensor": ("decode", 2.0),
        "net.ResizeTensor": ("resize", 0.5),
        "net.TensorrtTensor.copy": ("copy", 0.25),
        "net.TensorrtTensor.infer": ("infer", 3.0),
        RPC: (RPC, 3.0),
    }


def test_a_backend_with_parts_of_its_own_counts_once() -> None:
    parts = _parts(
        {
            "net.forward": 6.0,
            "net.TensorrtTensor": 5.0,
            "net.TensorrtTensor.copy": 1.0,
            "net.TensorrtTensor.infer": 3.5,
        }
    )
    assert parts["net.forward, rest"] == ("other", 1.0)
    assert parts["net.TensorrtTensor, rest"] == ("other", 0.5)
    assert sum(value for _, value in parts.values()) == 10.0


def test_the_baselines_stages_follow_each_other() -> None:
    parts = _parts({"decode": 1.0, "preprocess": 2.0, "lock": 3.0, "infer": 2.5})
    assert [kind for kind, _ in parts.values()] == ["decode", "resize", "queue", "infer", RPC]
    assert parts[RPC] == (RPC, 1.5)


def test_a_nodes_name_does_not_decide_what_its_stages_are() -> None:
    parts = _parts({"decoder.queue": 1.0, "decoder.forward": 2.0, "decoder.ResizeMat": 1.5})
    kinds = {name: kind for name, (kind, _) in parts.items()}
    assert kinds["decoder.queue"] == "queue"
    assert kinds["decoder.ResizeMat"] == "resize"


def test_means_add_up_to_the_latency_and_medians_are_of_each_part() -> None:
    requests = [StagedRequest(latency_ms, {"lock": 1.0}) for latency_ms in (2.0, 3.0, 10.0)]
    parts = stage_parts(StageRun("baseline", 10, [], requests, ""))
    assert sum(part.mean_ms for part in parts) == pytest.approx(5.0)
    assert sum(part.share for part in parts) == pytest.approx(1.0)
    assert {part.name: part.median_ms for part in parts} == {"lock": 1.0, RPC: 2.0}
    assert by_kind(parts) == {"queue": pytest.approx(1.0), RPC: pytest.approx(4.0)}


def test_a_server_that_tells_nothing_has_no_parts() -> None:
    assert stage_parts(StageRun("other", 10, [], [StagedRequest(5.0, {})], "")) == []
    assert stage_parts(StageRun("other", 10, [], [], "it failed")) == []
