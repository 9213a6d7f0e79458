from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from engine.errors import EngineError
from engine.onnx_graph.fp16 import cast_layers
from engine.onnx_graph.layer_names import layer_name
from engine.onnx_graph.model import OnnxModel
from engine.options import EngineOptions
from engine.registry import choose_engine, load_engine
from tests.fp16_layers import fp16_layer_names


def fused(model: OnnxModel) -> OnnxModel:
    assert model.declared_normalization is not None
    return model.with_uint8_input(model.declared_normalization)


def run(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    outputs: list[np.ndarray] = session.run(None, feeds)
    return outputs


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet50"])
def test_photographs_keep_their_labels_in_fp16(
    name: str, request: pytest.FixtureRequest, photo_batch: torch.Tensor
) -> None:
    model = fused(request.getfixturevalue(name))
    pixels = photo_batch.permute(0, 2, 3, 1).contiguous().numpy()
    engine = load_engine(choose_engine("onnxruntime"), model, EngineOptions(max_batch_size=6))
    expected = engine.create_context().run([(photo_batch,)])[0].numpy()
    (scores,) = run(cast_layers(model.proto, "fp16"), {model.inputs[0].name: pixels})
    assert scores.dtype == np.float32
    assert (scores.argmax(axis=1) == expected.argmax(axis=1)).all()
    assert np.abs(scores - expected).max() < 0.02
    # The same everywhere would mean that nothing was rounded, and so nothing cast.
    assert np.abs(scores - expected).max() > 0


def test_every_layer_that_computes_is_cast_and_the_weights_with_it(
    efficientnet_lite0: OnnxModel,
) -> None:
    model = fused(efficientnet_lite0)
    cast = cast_layers(model.proto, "fp16")
    cast_ops = {
        node.op_type
        for node in model.proto.graph.node
        if layer_name(node) in fp16_layer_names(cast)
    }
    assert cast_ops == {"Conv", "Clip", "Add", "GlobalAveragePool", "Reshape", "Gemm"}
    assert len(cast.SerializeToString()) < 0.51 * len(model.serialized())
    # In and out once each: a cast between two fp16 layers would be a hole.
    assert [node.op_type for node in cast.graph.node].count("Cast") == 4


def test_pixels_and_probabilities_stay_in_fp32(efficientnet_lite0: OnnxModel) -> None:
    """255 steps times a factor, and scores that have to add up to 1."""
    cast = cast_layers(fused(efficientnet_lite0).proto, "fp16")
    kept = {layer_name(node) for node in cast.graph.node} - fp16_layer_names(cast)
    assert {"thriftpipe/input/scaled", "thriftpipe/input/normalized", "/Softmax"} <= kept


def test_listed_layers_stay_in_fp32(efficientnet_lite0: OnnxModel) -> None:
    proto = efficientnet_lite0.proto
    everything = fp16_layer_names(cast_layers(proto, "fp16"))
    fewer = fp16_layer_names(cast_layers(proto, "fp16", fp32_layers=["_blocks.0/", "/_fc"]))
    assert everything - fewer == {
        name for name in everything if "_blocks.0/" in name or "/_fc" in name
    }
    assert len(everything - fewer) > 2


def test_listed_layers_alone_run_in_fp16(efficientnet_lite0: OnnxModel) -> None:
    cast = cast_layers(efficientnet_lite0.proto, "fp32", fp16_layers=["_blocks.1/", "Softmax"])
    names = fp16_layer_names(cast)
    assert "/Softmax" in names
    assert len(names) > 2
    assert all("_blocks.1/" in name or name == "/Softmax" for name in names)


def test_a_layer_in_both_lists_stays_in_fp32(small_proto: Callable[..., onnx.ModelProto]) -> None:
    cast = cast_layers(small_proto(), "fp16", fp32_layers=["conv"], fp16_layers=["conv"])
    assert "conv" not in fp16_layer_names(cast)


def test_without_lists_fp32_changes_nothing(small_proto: Callable[..., onnx.ModelProto]) -> None:
    assert list(cast_layers(small_proto(), "fp32").graph.node) == list(small_proto().graph.node)


@pytest.mark.parametrize("setting", ["fp32_layers", "fp16_layers"])
def test_a_name_that_no_layer_has_is_refused(
    small_proto: Callable[..., onnx.ModelProto], setting: str
) -> None:
    with pytest.raises(EngineError, match=r"precision::fp\d\d: 'conf' is part of no layer's name"):
        cast_layers(small_proto(), "fp16", **{setting: ["conf"]})


def test_a_layer_whose_weights_are_beyond_fp16_stays_in_fp32(
    small_proto: Callable[..., onnx.ModelProto],
) -> None:
    proto = small_proto()
    (matrix,) = (tensor for tensor in proto.graph.initializer if tensor.name == "matrix")
    matrix.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(matrix) * 1e6, "matrix"))
    names = fp16_layer_names(cast_layers(proto, "fp16"))
    assert "logits" not in names
    assert "conv" in names


def graph_of(
    nodes: Sequence[onnx.NodeProto], weights: dict[str, np.ndarray], outputs: Sequence[str]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


X = np.linspace(-2, 2, 8, dtype=np.float32).reshape(2, 4)


def test_a_tensor_that_is_an_output_and_goes_on_is_there_in_both_types() -> None:
    proto = graph_of(
        [
            helper.make_node("Relu", ["x"], ["y"], "relu"),
            helper.make_node("Add", ["y", "w"], ["z"], "add"),
            helper.make_node("Softmax", ["y"], ["s"], "softmax"),
        ],
        {"w": np.ones(4, np.float32)},
        ["y", "z", "s"],
    )
    cast = cast_layers(proto, "fp16")
    assert fp16_layer_names(cast) == {"relu", "add"}
    for got, wanted in zip(run(cast, {"x": X}), run(proto, {"x": X}), strict=True):
        np.testing.assert_allclose(got, wanted, atol=2e-3)


def test_weights_that_both_kinds_of_layers_read_are_kept_twice() -> None:
    proto = graph_of(
        [
            helper.make_node("Add", ["x", "w"], ["y"], "half"),
            helper.make_node("Mul", ["y", "w"], ["z"], "whole"),
        ],
        {"w": np.full(4, 0.1, np.float32)},
        ["z"],
    )
    cast = cast_layers(proto, "fp16", fp32_layers=["whole"])
    assert {tensor.data_type for tensor in cast.graph.initializer} == {
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
    }
    np.testing.assert_allclose(run(cast, {"x": X})[0], run(proto, {"x": X})[0], atol=1e-3)


def test_integers_are_left_alone() -> None:
    """A shape and its tensors are no matter of precision."""
    proto = graph_of(
        [
            helper.make_node("Shape", ["x"], ["shape"], "shape"),
            helper.make_node("Mul", ["shape", "one"], ["same"], "integers"),
            helper.make_node("Reshape", ["x", "same"], ["y"], "reshape"),
        ],
        {"one": np.ones(1, np.int64)},
        ["y"],
    )
    cast = cast_layers(proto, "fp16")
    assert fp16_layer_names(cast) == {"reshape"}
    np.testing.assert_allclose(run(cast, {"x": X})[0], X, atol=1e-3)


def test_bodies_of_conditions_find_their_tensors() -> None:
    def body(name: str, op: str) -> onnx.GraphProto:
        return helper.make_graph(
            [helper.make_node(op, ["y"], [f"{name}_out"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, ["batch", 4])],
        )

    proto = graph_of(
        [
            helper.make_node("Relu", ["x"], ["y"], "relu"),
            helper.make_node(
                "If",
                ["yes"],
                ["z"],
                "if",
                then_branch=body("a", "Neg"),
                else_branch=body("b", "Abs"),
            ),
        ],
        {"yes": np.array(True)},
        ["z"],
    )
    cast = cast_layers(proto, "fp16")
    assert fp16_layer_names(cast) == {"relu"}
    np.testing.assert_allclose(run(cast, {"x": X})[0], -np.maximum(X, 0), atol=1e-3)
