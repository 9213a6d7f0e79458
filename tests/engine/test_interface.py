from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from engine.errors import EngineError
from engine.interface import Engine
from engine.onnx_graph.model import OnnxModel
from engine.options import BatchProfile, EngineOptions
from engine.registry import choose_engine, load_engine
from engine.tensor_spec import TensorSpec


@pytest.fixture
def adder(tmp_path: Path) -> Engine:
    """Two inputs of two numbers a row, and their sum."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["sum"])],
        "adder",
        [value(name, TensorProto.FLOAT, ["n", 2]) for name in "ab"],
        [value("sum", TensorProto.FLOAT, ["n", 2])],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "add.onnx")
    model = OnnxModel.load(tmp_path / "add.onnx")
    return load_engine(choose_engine("auto"), model, EngineOptions(max_batch_size=4))


def test_items_of_several_inputs_stay_aligned(adder: Engine) -> None:
    ones, twos = torch.ones(1, 2), torch.full((2, 2), 2.0)
    (sums,) = adder.create_context().run([(ones, 10 * ones), (twos, 10 * twos)])
    assert sums.tolist() == [[11, 11], [22, 22], [22, 22]]


def test_an_item_needs_a_tensor_for_every_input(adder: Engine) -> None:
    with pytest.raises(EngineError, match="has 2 inputs, got 1 tensors for one item"):
        adder.create_context().run([(torch.ones(1, 2),)])


def test_the_tensors_of_an_item_need_the_same_rows(adder: Engine) -> None:
    with pytest.raises(EngineError, match=r"tensors of one item have \[1, 2\] rows"):
        adder.create_context().run([(torch.ones(1, 2), torch.ones(2, 2))])


def test_inputs_may_be_of_a_type_that_converts(adder: Engine) -> None:
    whole = torch.tensor([[1, 255]], dtype=torch.uint8)
    assert adder.create_context().run([(whole, whole)])[0].tolist() == [[2, 510]]


@pytest.mark.parametrize(
    "field", ["max_batch_size", "num_contexts", "threads_per_context", "max_workspace_bytes"]
)
def test_options_start_at_one(field: str) -> None:
    options: dict[str, Any] = {field: 0}
    with pytest.raises(EngineError, match=f"{field} must be at least 1, got 0"):
        EngineOptions(**options)


@pytest.mark.parametrize(("smallest", "largest"), [(0, 1), (3, 2), (-1, -1)])
def test_a_profile_has_a_smallest_and_a_largest_batch(smallest: int, largest: int) -> None:
    message = f"got min {smallest} and max {largest}"
    with pytest.raises(EngineError, match=message):
        BatchProfile(smallest, largest)


def test_a_profile_fits_into_the_largest_batch() -> None:
    profiles = (BatchProfile(1, 1), BatchProfile(1, 4))
    assert EngineOptions(max_batch_size=4, profiles=profiles).profiles == profiles
    with pytest.raises(EngineError, match="up to 4 rows, more than max_batch_size = 3"):
        EngineOptions(max_batch_size=3, profiles=profiles)


def test_buffers_have_the_memory_order_of_the_graph() -> None:
    rows_first = TensorSpec("x", torch.uint8, (None, 3, 4, 5))
    channels_last = TensorSpec("x", torch.uint8, (None, 3, 4, 5), channels_last=True)
    assert rows_first.allocate(2).stride() == (60, 20, 5, 1)
    assert channels_last.allocate(2).shape == (2, 3, 4, 5)
    assert channels_last.allocate(2).stride() == (60, 1, 15, 3)
