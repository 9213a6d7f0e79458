"""Which outputs a model has, and one of them alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from engine.classifier import classifier_output
from engine.errors import EngineError
from engine.onnx_graph.model import OnnxModel
from engine.options import EngineOptions
from engine.registry import choose_engine, load_engine
from tests.engines import CPU_ENGINES

ProtoFactory = Callable[..., onnx.ModelProto]


def saved(proto: onnx.ModelProto, folder: Path) -> OnnxModel:
    onnx.checker.check_model(proto)
    onnx.save(proto, folder / "m.onnx")
    return OnnxModel.load(folder / "m.onnx")


def add_output(proto: onnx.ModelProto, node: onnx.NodeProto, dtype: int, *shape: object) -> None:
    """Add a node and its output; "batch" stands for the batch dimension."""
    proto.graph.node.append(node)
    value = helper.make_tensor_value_info(node.output[0], dtype, ["batch", *shape])
    proto.graph.output.append(value)


def with_features(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The small classifier with its pooled maps, N x 4 x 8 x 8, as first output."""
    value = helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["batch", 4, 8, 8])
    proto.graph.output.insert(0, value)
    return proto


@pytest.mark.parametrize("engine_name", CPU_ENGINES)
@pytest.mark.parametrize("name", [None, "scores"])
def test_the_output_that_scores_classes_is_served_by_every_engine(
    engine_name: str,
    name: str | None,
    tmp_path: Path,
    small_proto: ProtoFactory,
    small_model: OnnxModel,
) -> None:
    model = classifier_output(saved(with_features(small_proto()), tmp_path), name)
    images = torch.rand(1, 3, 8, 8)
    results = []
    for one in (model, small_model):
        engine = load_engine(choose_engine(engine_name), one, EngineOptions())
        context = engine.create_context()
        (output,) = context.run([(images,)])
        results.append(output.clone())
        context.close()
        engine.close()
    assert model.final_activation == "Softmax"
    torch.testing.assert_close(results[0], results[1])


def test_the_choice_is_told_in_one_line(
    tmp_path: Path, small_proto: ProtoFactory, caplog: pytest.LogCaptureFixture
) -> None:
    model = saved(with_features(small_proto()), tmp_path)
    with caplog.at_level(logging.INFO):
        classifier_output(model, None)
    (line,) = caplog.messages
    assert "'maps' float32 N x 4 x 8 x 8, 'scores' float32 N x 5: serving 'scores'" in line


def test_an_unknown_output_gets_the_closest_name_and_the_list(
    tmp_path: Path, small_proto: ProtoFactory
) -> None:
    model = saved(with_features(small_proto()), tmp_path)
    with pytest.raises(EngineError, match=r"no output 'score'; did you mean 'scores'\?") as caught:
        classifier_output(model, "score")
    assert "It has 'maps' float32 N x 4 x 8 x 8, 'scores' float32 N x 5" in str(caught.value)


def test_an_output_of_another_shape_is_refused_by_name(
    tmp_path: Path, small_proto: ProtoFactory
) -> None:
    model = saved(with_features(small_proto()), tmp_path)
    with pytest.raises(EngineError, match="'maps' float32 N x 4 x 8 x 8 should be"):
        classifier_output(model, "maps")


def test_several_that_may_score_classes_are_listed(
    tmp_path: Path, small_proto: ProtoFactory
) -> None:
    proto = small_proto()
    add_output(proto, helper.make_node("Exp", ["features"], ["embedding"]), TensorProto.FLOAT, 4)
    model = saved(proto, tmp_path)
    with pytest.raises(EngineError, match=r"has 2 outputs that may score.*--output") as caught:
        classifier_output(model, None)
    assert "'scores' float32 N x 5, 'embedding' float32 N x 4" in str(caught.value)
    assert classifier_output(model, "embedding").num_scores == 4


def test_class_numbers_and_single_values_beside_scores_are_no_candidates(
    tmp_path: Path, small_proto: ProtoFactory
) -> None:
    proto = small_proto()
    best = helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0)
    add_output(proto, best, TensorProto.INT64)
    sure = helper.make_node("ReduceMax", ["scores"], ["sure"], axes=[1], keepdims=1)
    add_output(proto, sure, TensorProto.FLOAT, 1)
    assert classifier_output(saved(proto, tmp_path), None).outputs[0].name == "scores"


@pytest.mark.parametrize("keepdims", [0, 1])
def test_class_numbers_alone_are_refused(
    keepdims: int, tmp_path: Path, small_proto: ProtoFactory
) -> None:
    proto = small_proto()
    del proto.graph.output[:]
    node = helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=keepdims)
    add_output(proto, node, TensorProto.INT64, *[1] * keepdims)
    model = saved(proto, tmp_path)
    with pytest.raises(EngineError, match=r"no outputs that may score classes.*'best' int64 N"):
        classifier_output(model, None)


def test_an_output_of_strings_is_left_out(
    tmp_path: Path, small_proto: ProtoFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """As classifiers have that were exported from scikit-learn."""
    proto = small_proto()
    names = helper.make_node("Cast", ["scores"], ["names"], to=TensorProto.STRING)
    add_output(proto, names, TensorProto.STRING, 5)
    with caplog.at_level(logging.INFO):
        model = saved(proto, tmp_path)
    assert "output 'names' is left out: it is a tensor of type STRING" in caplog.text
    assert [spec.name for spec in model.outputs] == ["scores"]
    assert all(node.op_type != "Cast" for node in model.proto.graph.node)
    del proto.graph.output[0]
    with pytest.raises(EngineError, match="no output that an engine takes: 'names' is a tensor"):
        saved(proto, tmp_path)


def test_a_number_of_classes_that_the_file_leaves_open_follows_from_the_graph(
    tmp_path: Path, small_proto: ProtoFactory
) -> None:
    proto = small_proto()
    value = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", "classes"])
    proto.graph.output[0].CopyFrom(value)
    assert saved(proto, tmp_path).num_scores == 5


def test_what_only_other_outputs_need_is_gone(tmp_path: Path, small_proto: ProtoFactory) -> None:
    proto = small_proto()
    extra = numpy_helper.from_array(np.zeros((1, 3), np.float32), "extra_weights")
    proto.graph.initializer.append(extra)
    proto.graph.input.append(helper.make_tensor_value_info("extra", TensorProto.FLOAT, ["b", 3]))
    node = helper.make_node("Add", ["extra", "extra_weights"], ["sum"])
    add_output(proto, node, TensorProto.FLOAT, 3)
    model = saved(proto, tmp_path).with_output("scores")
    assert [spec.name for spec in model.inputs] == ["image"]
    assert "extra_weights" not in {tensor.name for tensor in model.proto.graph.initializer}
    onnx.checker.check_model(model.proto, full_check=True)
