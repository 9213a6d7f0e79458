from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import helper

from engine.errors import EngineError
from engine.onnx_graph.model import OnnxModel

ProtoFactory = Callable[..., onnx.ModelProto]


def saved(proto: onnx.ModelProto, path: Path) -> OnnxModel:
    onnx.save(proto, path)
    return OnnxModel.load(path)


def test_metadata_for_pixels_of_0_to_1_is_an_error_that_names_the_file(
    tmp_path: Path, small_proto: ProtoFactory
) -> None:
    proto = small_proto()
    helper.set_model_props(proto, {"thriftpipe.mean": "0.5", "thriftpipe.std": "0.5"})
    with pytest.raises(EngineError, match=r"m\.onnx: thriftpipe\.mean, thriftpipe\.std: mean 0"):
        _ = saved(proto, tmp_path / "m.onnx").declared_normalization


def test_metadata_that_is_no_list_of_numbers_is_an_error(
    tmp_path: Path, small_proto: ProtoFactory
) -> None:
    proto = small_proto()
    helper.set_model_props(proto, {"thriftpipe.mean": "a,b,c", "thriftpipe.std": "1"})
    with pytest.raises(EngineError, match=r"thriftpipe\.mean or thriftpipe\.std"):
        _ = saved(proto, tmp_path / "m.onnx").declared_normalization
