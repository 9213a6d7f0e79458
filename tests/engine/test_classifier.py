"""What a handler needs to know of a classifier beyond its graph."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from engine.classifier import classifier_input, classifier_normalization, input_size
from engine.errors import EngineError
from engine.normalization import IMAGENET_NORMALIZATION, Normalization
from engine.onnx_graph.model import OnnxModel


def test_given_values_win_over_the_models_own(efficientnet_lite0: OnnxModel) -> None:
    given = classifier_normalization(efficientnet_lite0, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    assert (given.mean, given.std) == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    own = classifier_normalization(efficientnet_lite0, None, None)
    assert own == efficientnet_lite0.declared_normalization


def test_a_model_that_declares_nothing_gets_imagenets_and_the_log_says_so(
    small_model: OnnxModel, caplog: pytest.LogCaptureFixture
) -> None:
    assert small_model.declared_normalization is None
    with caplog.at_level(logging.INFO):
        assert classifier_normalization(small_model, None, None) == IMAGENET_NORMALIZATION
    assert "using ImageNet's" in caplog.text
    assert "normalize their image" not in caplog.text


@pytest.mark.parametrize("operator", ["Sub", "Div", "Mul", "Add"])
def test_imagenets_values_before_a_graph_that_normalizes_its_image_are_a_warning(
    operator: str,
    small_proto: Callable[..., onnx.ModelProto],
    caplog: pytest.LogCaptureFixture,
) -> None:
    proto = small_proto()
    proto.graph.node[0].input[0] = "own"
    proto.graph.initializer.append(helper.make_tensor("middle", TensorProto.FLOAT, [], [127.5]))
    proto.graph.node.insert(0, helper.make_node(operator, ["image", "middle"], ["own"]))
    model = OnnxModel(Path("m.onnx"), "", proto)
    with caplog.at_level(logging.WARNING):
        classifier_normalization(model, (0.0,), (1.0,))
        assert not caplog.text
        classifier_normalization(model, None, None)
    assert f"begins with a {operator} of them" in caplog.text
    assert "use --mean 0 --std 1 if it takes pixels of 0 to 255" in caplog.text


def test_mean_and_std_go_together(efficientnet_lite0: OnnxModel) -> None:
    with pytest.raises(EngineError, match="std is missing"):
        classifier_normalization(efficientnet_lite0, (1.0,), None)
    with pytest.raises(EngineError, match="mean is missing"):
        classifier_normalization(efficientnet_lite0, None, (1.0,))


def test_the_size_of_the_images_is_the_models(
    efficientnet_lite0: OnnxModel, small_model: OnnxModel
) -> None:
    assert input_size(classifier_input(efficientnet_lite0)) == (224, 224)
    proto = onnx.ModelProto()
    proto.CopyFrom(small_model.proto)
    for dimension in proto.graph.input[0].type.tensor_type.shape.dim[2:]:
        dimension.dim_param = "open"
    model = OnnxModel(small_model.path, small_model.sha256, proto)
    assert input_size(classifier_input(model)) == (224, 224)
    assert input_size(classifier_input(model, crop=(16, 16))) == (16, 16)
    assert input_size(classifier_input(model, size=(8, 12), crop=(16, 16))) == (8, 12)


def test_an_input_that_is_no_image_is_refused_with_its_shape(
    small_proto: Callable[..., onnx.ModelProto],
) -> None:
    for sizes in ([4, 8, 8], [8, 8, 4]):
        proto = small_proto()
        for dim, size in zip(
            proto.graph.input[0].type.tensor_type.shape.dim[1:], sizes, strict=True
        ):
            dim.dim_value = size
        shape = " x ".join(map(str, sizes))
        told = f"of 1 or 3 channels, .* it takes 'image' float32 N x {shape}$"
        with pytest.raises(EngineError, match=told):
            classifier_input(OnnxModel(Path("m.onnx"), "", proto))


def test_other_integers_and_a_second_input_are_refused(
    small_proto: Callable[..., onnx.ModelProto],
) -> None:
    proto = small_proto()
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.INT32
    with pytest.raises(EngineError, match="it takes 'image' int32 N x 3 x 8 x 8"):
        classifier_input(OnnxModel(Path("m.onnx"), "", proto))
    proto = small_proto()
    proto.graph.input.append(helper.make_tensor_value_info("box", TensorProto.FLOAT, ["batch", 4]))
    with pytest.raises(EngineError, match="N x 3 x 8 x 8, 'box' float32 N x 4"):
        classifier_input(OnnxModel(Path("m.onnx"), "", proto))


def test_onnxs_own_metadata_says_which_pixels_a_model_wants(
    small_proto: Callable[..., onnx.ModelProto],
) -> None:
    proto = small_proto()
    helper.set_model_props(proto, {"Image.NominalPixelRange": "Normalized_1_1"})
    model = OnnxModel(Path("m.onnx"), "", proto)
    assert classifier_normalization(model, None, None) == Normalization((127.5,), (127.5,))


def test_a_denotation_says_where_the_channels_are(
    small_proto: Callable[..., onnx.ModelProto],
) -> None:
    """Where the shape would say something else."""
    proto = small_proto(size=3)
    proto.graph.input[0].type.tensor_type.shape.dim[3].denotation = "DATA_CHANNEL"
    found = OnnxModel(Path("m.onnx"), "", proto).with_image_input().image_format
    assert str(found) == "NHWC (its file), RGB"
