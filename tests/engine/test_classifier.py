"""What a handler needs to know of a classifier beyond its graph."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from engine.classifier import classifier_input_size, classifier_normalization, probabilities
from engine.interface import EngineError
from engine.onnx_model import IMAGENET_NORMALIZATION, OnnxModel


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


def test_mean_and_std_go_together(efficientnet_lite0: OnnxModel) -> None:
    with pytest.raises(EngineError, match="std is missing"):
        classifier_normalization(efficientnet_lite0, (1.0,), None)
    with pytest.raises(EngineError, match="mean is missing"):
        classifier_normalization(efficientnet_lite0, None, (1.0,))


def test_the_size_of_the_images_is_the_models(
    efficientnet_lite0: OnnxModel, small_model: OnnxModel
) -> None:
    assert classifier_input_size(efficientnet_lite0) == (224, 224)
    proto = onnx.ModelProto()
    proto.CopyFrom(small_model.proto)
    for dimension in proto.graph.input[0].type.tensor_type.shape.dim[2:]:
        dimension.dim_param = "open"
    with pytest.raises(EngineError, match="leaves the height and width of its input open"):
        classifier_input_size(OnnxModel(small_model.path, small_model.sha256, proto))


def test_logits_become_probabilities_and_probabilities_stay(
    efficientnet_lite0: OnnxModel, small_proto: Callable[..., onnx.ModelProto]
) -> None:
    gives_logits = OnnxModel(Path("logits.onnx"), "", small_proto(last="Identity"))
    output = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    assert efficientnet_lite0.outputs_probabilities
    np.testing.assert_array_equal(probabilities(output, are_probabilities=True), output.numpy())
    assert not gives_logits.outputs_probabilities
    expected = np.exp(output.numpy())
    expected /= expected.sum(axis=1, keepdims=True)
    result = probabilities(output.reshape(2, 3, 1, 1), are_probabilities=False)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=1e-6)
