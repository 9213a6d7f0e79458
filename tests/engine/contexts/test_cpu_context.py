"""Rows that other libraries than torch compute on, wherever they lie."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from engine.errors import EngineError
from engine.interface import ExecutionContext
from engine.onnx_graph.model import OnnxModel
from engine.options import EngineOptions
from engine.registry import choose_engine, load_engine
from tests.engines import CPU_ENGINES


@pytest.fixture(params=CPU_ENGINES)
def context(request: pytest.FixtureRequest, tmp_path: Path) -> ExecutionContext:
    """Of a network whose first operator could write over its input: max(0, x) + 1, 3 values a row.

    Its batches hold up to 4 rows.
    """
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    nodes = [
        helper.make_node("Relu", ["x"], ["positive"]),
        helper.make_node("Add", ["positive", "one"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 3]) for n in "xy")
    graph = helper.make_graph(nodes, "positive", [x], [y], [one])
    path = tmp_path / "positive.onnx"
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    options = EngineOptions(max_batch_size=4)
    return load_engine(choose_engine(request.param), OnnxModel.load(path), options).create_context()


def test_what_is_read_where_it_lies_is_not_written(context: ExecutionContext) -> None:
    rows = torch.tensor([[-1.0, 0.0, 2.0]])
    for _ in range(3):
        assert context.run([(rows,)])[0].tolist() == [[1.0, 1.0, 3.0]]
        assert rows.tolist() == [[-1.0, 0.0, 2.0]]


def test_lone_items_and_batches_take_turns(context: ExecutionContext) -> None:
    """Nothing of an earlier run shows in a later one."""
    for number in range(6):
        count = 1 + number % 3
        items = [(torch.full((1 + number % 2, 3), float(number + k)),) for k in range(count)]
        if sum(len(rows) for (rows,) in items) > 4:
            items = items[:2]
        (scores,) = context.run(items)
        assert torch.equal(scores, torch.cat([rows for (rows,) in items]) + 1)


def test_rows_that_lie_otherwise_give_the_same(context: ExecutionContext) -> None:
    given = {
        "gaps": torch.arange(12.0).reshape(2, 6)[:, ::2],
        "other order": torch.arange(6.0).reshape(3, 2).T,
        "other type": torch.arange(6).reshape(2, 3),
    }
    for rows in given.values():
        assert context.run([(rows,)])[0].tolist() == (rows.float() + 1).tolist()


def test_what_failed_leaves_nothing_behind(context: ExecutionContext) -> None:
    with pytest.raises(EngineError, match="at most 4 rows, got 5"):
        context.run([(torch.zeros(5, 3),)])
    assert context.run([(torch.zeros(2, 3),)])[0].tolist() == [[1.0] * 3] * 2


def test_a_batch_is_not_kept_for_longer_than_the_next_one(context: ExecutionContext) -> None:
    """An image's memory counts for as long as anything refers to it."""
    memory = np.zeros((1, 3), np.float32)
    is_alive = weakref.ref(memory)
    context.run([(torch.from_numpy(memory),)])
    del memory
    context.run([(torch.zeros(1, 3),)])
    gc.collect()
    assert is_alive() is None
