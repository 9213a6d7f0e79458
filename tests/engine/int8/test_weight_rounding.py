from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from engine.int8.weight_rounding import round_weights

Array = np.ndarray[Any, Any]


def one_product(node: onnx.NodeProto, shape: list[int], constants: dict[str, Array]) -> Any:
    """A model of one node, from "x" of that shape to "y"."""
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def outputs(proto: onnx.ModelProto, feeds: list[dict[str, Array]]) -> Array:
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.stack([session.run(None, feed)[0] for feed in feeds])


def constants_of(proto: onnx.ModelProto) -> dict[str, Array]:
    return {it.name: numpy_helper.to_array(it) for it in proto.graph.initializer}


def to_nearest(proto: onnx.ModelProto, axis: int, largest: int) -> onnx.ModelProto:
    """The model with each weight rounded by itself."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    (tensor,) = (it for it in copy.graph.initializer if it.name == "w")
    values = numpy_helper.to_array(tensor)
    others = tuple(it for it in range(values.ndim) if it != axis)
    steps = np.abs(values).max(axis=others, keepdims=True) / largest
    rounded = (np.round(values / steps) * steps).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(rounded, "w"))
    return copy


def weights(*shape: int) -> Array:
    return np.random.default_rng(seed=3).normal(size=shape).astype(np.float32)


CONV = {"pads": [1, 0, 1, 2], "strides": [2, 1]}
CASES = {
    "conv": (
        helper.make_node("Conv", ["x", "w", "b"], ["y"], "it", **CONV),
        [1, 6, 12, 12],
        {"w": weights(4, 6, 3, 3), "b": weights(4)},
        0,
    ),
    "depthwise": (
        helper.make_node("Conv", ["x", "w", "b"], ["y"], "it", group=6, dilations=[2, 1]),
        [1, 6, 12, 12],
        {"w": weights(12, 1, 3, 3), "b": weights(12)},
        0,
    ),
    "conv without bias": (
        helper.make_node("Conv", ["x", "w"], ["y"], "it"),
        [1, 6, 12, 12],
        {"w": weights(4, 6, 1, 1)},
        0,
    ),
    "gemm": (
        helper.make_node("Gemm", ["x", "w", "b"], ["y"], "it", transB=1),
        [1, 40],
        {"w": weights(5, 40), "b": weights(5)},
        0,
    ),
    "gemm of columns": (
        helper.make_node("Gemm", ["x", "w", "b"], ["y"], "it"),
        [1, 40],
        {"w": weights(40, 5), "b": weights(5)},
        1,
    ),
    "matmul": (
        helper.make_node("MatMul", ["x", "w"], ["y"], "it"),
        [1, 7, 40],
        {"w": weights(40, 5)},
        1,
    ),
}


@pytest.mark.parametrize("largest", [127, 64])
@pytest.mark.parametrize("name", CASES)
def test_products_come_nearer_to_what_they_were_than_with_the_nearest_weights(
    name: str, largest: int
) -> None:
    """Inputs as images have them: large, and nearly alike."""
    node, shape, constants, axis = CASES[name]
    proto = one_product(node, shape, constants)
    random = np.random.default_rng(seed=4)
    common = random.uniform(2, 4, size=(60, *(1 for _ in shape)))
    drawn = (common + random.normal(scale=0.3, size=(60, *shape))).astype(np.float32)
    feeds = [{"x": it} for it in drawn]
    result = round_weights(proto, feeds, set(), largest)
    rounded = constants_of(result.proto)
    bound_axis, bounds = result.bounds["w"]
    assert bound_axis == axis
    steps = np.moveaxis(rounded["w"], axis, -1) / (bounds / largest)
    assert np.allclose(steps, steps.round(), atol=1e-3)
    assert np.abs(steps).max() < largest + 0.5
    expected = outputs(proto, feeds)
    error = outputs(result.proto, feeds) - expected
    nearest = outputs(to_nearest(proto, axis, largest), feeds) - expected
    assert np.square(error).mean() < 0.8 * np.square(nearest).mean()
    assert constants_of(proto)["w"].tolist() == constants["w"].tolist()


def test_what_is_excluded_or_shared_stays_as_it_is() -> None:
    node, shape, constants, _ = CASES["conv"]
    proto = one_product(node, shape, constants)
    feeds = [{"x": weights(*shape)}]
    assert round_weights(proto, feeds, {"it"}, 127).bounds == {}
    second = helper.make_node("Conv", ["x", "w", "b"], ["z"], "second")
    proto.graph.node.append(second)
    assert round_weights(proto, feeds, set(), 127).bounds == {}


def test_a_channel_of_zeros_and_an_input_of_zeros_stay_finite() -> None:
    node, shape, constants, _ = CASES["conv"]
    silent = {
        **constants,
        "w": constants["w"] * np.array([0, 1, 1, 1], np.float32)[:, None, None, None],
    }
    proto = one_product(node, shape, silent)
    result = round_weights(proto, [{"x": np.zeros(shape, np.float32)}], set(), 64)
    assert all(np.isfinite(it).all() for it in constants_of(result.proto).values())
