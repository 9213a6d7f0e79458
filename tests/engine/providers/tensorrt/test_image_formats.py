"""TensorRT builds what models want of their image, as far as its layers allow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

from engine.normalization import Normalization
from engine.onnx_graph.model import OnnxModel
from engine.options import BatchProfile, EngineOptions
from engine.providers.tensorrt.builder import BuildSettings, build_plan
from engine.providers.tensorrt.graph import tensorrt_graph
from tests.image_models import save_means

# Its wheels are for Linux on x86-64.
trt = pytest.importorskip("tensorrt_rtx_bindings")
pytestmark = pytest.mark.filterwarnings("ignore:.*Timing cache:DeprecationWarning")

SETTINGS = BuildSettings((BatchProfile(1, 4),), max_workspace_bytes=2**30)
PLAIN = Normalization((0.0,), (1.0,))
UINT8 = TensorProto.UINT8


def for_rtx_40(config: Any) -> None:
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)


@pytest.mark.parametrize(
    ("saved", "color"),
    [
        ({"layout": "nhwc"}, "bgr"),
        ({"channels": 1, "layout": "nhwc"}, None),
        ({"layout": "nhwc", "dtype": UINT8}, None),
        ({"dtype": UINT8}, None),
        ({"dtype": UINT8}, "bgr"),
        ({"layout": "nhwc", "dtype": UINT8}, "bgr"),
        ({"channels": 1, "dtype": UINT8}, None),
    ],
)
def test_it_is_built_and_computes_the_same(
    saved: dict[str, Any], color: str | None, tmp_path: Path
) -> None:
    model = OnnxModel.load(save_means(tmp_path / "m.onnx", **saved))
    image = model.with_image_input(None, color)
    fused = image.with_uint8_input(None if image.takes_bytes else PLAIN)
    graph = tensorrt_graph(fused, EngineOptions(precision="fp16"))
    assert build_plan(trt, graph, SETTINGS, for_rtx_40)
    feeds = {fused.inputs[0].name: np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), "u1")}
    own, for_tensorrt = (
        onnxruntime.InferenceSession(it, providers=["CPUExecutionProvider"]).run(None, feeds)[0]
        for it in (fused.serialized(), tensorrt_graph(fused, EngineOptions()))
    )
    assert np.array_equal(own, for_tensorrt)
