"""Warnings of models that get pixels of 0 to 255 as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.config import parse_config
from pipeline.pixel_warnings import pixel_warnings

DECODE = "DecodeMat,ResizeMat(resize_h=8,resize_w=8),Mat2Tensor"


def save(folder: Path, *first: onnx.NodeProto, dtype: int = TensorProto.FLOAT) -> str:
    """A model with these nodes between its input, "image", and a pooling of "scaled"."""
    nodes = [
        *(first or [helper.make_node("Identity", ["image"], ["scaled"])]),
        helper.make_node("GlobalAveragePool", ["scaled"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "pool",
        [helper.make_tensor_value_info("image", dtype, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.array(127.5, np.float32), "middle")],
    )
    path = folder / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return str(path)


def warnings(model: str, before: str = DECODE, **settings: str) -> list[str]:
    document = {
        "decode": {"backend": f"S[{before}]", "next": "net"},
        "net": {"backend": "TensorrtTensor", "model": model, **settings},
    }
    return list(pixel_warnings(parse_config(document).nodes.values()))


def test_a_model_that_says_nothing_of_its_pixels_is_told_of_imagenets(tmp_path: Path) -> None:
    (text,) = warnings(save(tmp_path))
    assert text.startswith("[net] has neither mean nor std, so ")
    assert 'ImageNet\'s are mean = "123.675, 116.28, 103.53" and std = "58.395, 57.12' in text


def test_what_the_model_declares_is_proposed(tmp_path: Path) -> None:
    path = save(tmp_path)
    proto = onnx.load(path)
    helper.set_model_props(proto, {"thriftpipe.mean": "127", "thriftpipe.std": "128"})
    onnx.save(proto, path)
    (text,) = warnings(path)
    assert 'it declares mean = "127" and std = "128"' in text
    (text,) = warnings("efficientnet_lite0")
    assert 'it needs mean = "126.99" and std = "128.01"' in text


def test_mean_and_std_that_are_given_are_no_mistake(tmp_path: Path) -> None:
    assert warnings(save(tmp_path), mean="0", std="1") == []


def test_one_of_them_alone_may_not_be_meant(tmp_path: Path) -> None:
    (mean_only,) = warnings(save(tmp_path), mean="103.9,116.8,123.7")
    assert "has mean and no std, so nothing is divided; if that is meant, write" in mean_only
    (std_only,) = warnings(save(tmp_path), std="255")
    assert "has std and no mean, so nothing is subtracted" in std_only
    (text,) = warnings("efficientnet_lite0", std="128")
    assert "mean 0 and std 128 are not what efficientnet_lite0 declares" in text


@pytest.mark.parametrize("operator", ["Sub", "Div", "Mul", "Add"])
def test_a_graph_that_begins_with_arithmetic_does_it_itself(operator: str, tmp_path: Path) -> None:
    first = [
        helper.make_node("Cast", ["image"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node(operator, ["cast", "middle"], ["scaled"]),
    ]
    assert warnings(save(tmp_path, *first)) == []


def test_a_model_of_bytes_wants_them_as_they_are(tmp_path: Path) -> None:
    first = helper.make_node("Cast", ["image"], ["scaled"], to=TensorProto.FLOAT)
    assert warnings(save(tmp_path, first, dtype=TensorProto.UINT8)) == []


def test_ones_own_backend_may_do_it(tmp_path: Path) -> None:
    assert warnings(save(tmp_path), "DecodeMat,TestDouble") == []


def test_a_model_without_a_decoder_gets_what_its_caller_gives(tmp_path: Path) -> None:
    document = {"net": {"backend": "TensorrtTensor", "model": save(tmp_path)}}
    assert list(pixel_warnings(parse_config(document).nodes.values())) == []


def test_other_values_than_the_model_declares_are_a_warning_without_a_decoder_too() -> None:
    document = {"net": {"backend": "TensorrtTensor", "model": "efficientnet_lite0"}}
    document["net"] |= {"mean": "0", "std": "1"}
    (text,) = pixel_warnings(parse_config(document).nodes.values())
    assert text.startswith("[net] mean 0 and std 1 are not what efficientnet_lite0 declares")
    document["net"] |= {"mean": "126.99", "std": "128.01"}
    assert list(pixel_warnings(parse_config(document).nodes.values())) == []
