from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest

from engine.errors import EngineError
from engine.onnx_graph.layer_names import named_layers


def test_parts_name_every_layer_that_has_them(small_proto: Callable[..., onnx.ModelProto]) -> None:
    """A layer without a name of its own goes by its first output."""
    assert named_layers(small_proto(), ["con", "log"], "precision::fp32") == {"conv", "logits"}
    assert named_layers(small_proto(), [], "precision::fp32") == set()


def test_a_part_that_names_nothing_is_refused_with_the_closest(
    small_proto: Callable[..., onnx.ModelProto],
) -> None:
    with pytest.raises(EngineError) as caught:
        named_layers(small_proto(), ["conv", "logit5"], "precision::fp32")
    message = str(caught.value)
    assert message.startswith("precision::fp32: 'logit5' is part of no layer's name; did you mean")
    assert "'logits'" in message
    assert "5 layers, from 'conv' to 'last'" in message


def test_parts_between_separators_are_suggested(
    small_proto: Callable[..., onnx.ModelProto],
) -> None:
    proto = small_proto()
    proto.graph.node[0].name = "/network/layer1/Conv"
    with pytest.raises(EngineError, match="did you mean 'layer1'"):
        named_layers(proto, ["layr1"], "precision::fp16")
