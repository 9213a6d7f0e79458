"""Real measurements of a small model."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import pytest
import torch

from engine.calibration import choice, measurement
from engine.calibration.measurement import Open, measure
from engine.calibration.side_by_side import Items, SideBySide, made_up_items
from engine.errors import EngineError
from engine.interface import Engine, ExecutionContext
from engine.onnx_graph.model import OnnxModel
from engine.options import EngineOptions
from engine.registry import choose_engine, load_engine


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short windows, for which there is always time."""
    monkeypatch.setattr(choice, "SHORTEST_WINDOW_S", 0.001)
    monkeypatch.setattr(measurement, "_LEAST_S", 30.0)
    monkeypatch.setattr(measurement, "MOST_ROUNDS", 30)


def loaded(model: OnnxModel, rows: int, contexts: int) -> Engine:
    options = EngineOptions(max_batch_size=rows, num_contexts=contexts)
    return load_engine(choose_engine("onnxruntime", "fp32"), model, options)


def watched(model: OnnxModel, ran: Callable[[int], None]) -> Callable[[int], Engine]:
    """What loads an engine of one context that tells the rows of each batch that it runs."""

    def load(rows: int) -> Engine:
        engine = loaded(model, rows, 1)
        create = engine.create_context

        def create_watched() -> ExecutionContext:
            context = create()
            run = context.run

            def watched_run(items: Items) -> list[torch.Tensor]:
                ran(len(items))
                return run(items)

            context.run = watched_run  # type: ignore[method-assign]
            return context

        engine.create_context = create_watched  # type: ignore[method-assign]
        return engine

    return load


def test_each_row_is_decoded_before_its_batch_runs(small_model: OnnxModel) -> None:
    """What comes before the engine takes its part of the caches, and of the time."""
    events: list[str] = []
    load = watched(small_model, lambda rows: events.append(str(rows)))
    measure(Open((1, 2), contexts=1), load, lambda: events.append("r"))
    assert re.fullmatch("(r1|rr2)+", "".join(events))
    assert {"1", "2"} <= set(events)


def test_the_smallest_size_and_another_get_most_of_the_time(small_model: OnnxModel) -> None:
    sizes: list[int] = []
    measure(Open((1, 2, 4, 8), contexts=1), watched(small_model, sizes.append), lambda: None)
    late = sizes[-len(sizes) // 4 :]
    assert 1 in late
    assert len(set(late)) == 2
    assert set(sizes) == {1, 2, 4, 8}


def test_contexts_that_wait_for_cores_are_noticed(
    small_model: OnnxModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight of them have one core, for so long that all are at work at the same time."""
    monkeypatch.setattr(choice, "SHORTEST_WINDOW_S", 0.1)
    monkeypatch.setattr(measurement, "MOST_ROUNDS", 8)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        asked = Open((1, 2), contexts=8)
        found = measure(asked, lambda rows: loaded(small_model, rows, 8), lambda: None)
    finally:
        os.sched_setaffinity(0, before)
    assert found.cpu_share < 0.9


def test_what_one_context_raises_is_raised_when_all_have_ended(small_model: OnnxModel) -> None:
    contexts = SideBySide(loaded(small_model, 2, 2), 2)
    with pytest.raises(EngineError, match="a batch holds at most 2 rows, got 3"):
        contexts.run(made_up_items(small_model, 3), 0.0)
    took_s = contexts.run(made_up_items(small_model, 2), 0.0)
    assert [len(times_s) for times_s in took_s] == [1, 1]
    contexts.close()
