from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch

from engine.errors import EngineError
from engine.normalization import IMAGENET_NORMALIZATION
from engine.onnx_graph.model import OnnxModel
from engine.options import EngineOptions
from engine.providers.tensorrt.graph import tensorrt_graph
from tests.fp16_layers import fp16_layer_names


def graph(model: OnnxModel, precision: str, **options: object) -> onnx.ModelProto:
    content = tensorrt_graph(model, EngineOptions(precision=precision, **options))  # type: ignore[arg-type]
    proto = onnx.load_model_from_string(content)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def test_a_cast_is_the_first_that_pixels_meet(small_model: OnnxModel) -> None:
    fused = small_model.with_uint8_input(IMAGENET_NORMALIZATION)
    proto = graph(fused, "fp32")
    (reader,) = (node for node in proto.graph.node if fused.inputs[0].name in node.input)
    assert reader.op_type == "Cast"
    names = [node.name for node in proto.graph.node if node.name]
    assert len(set(names)) == len(names)


def test_it_computes_what_the_model_computes(small_model: OnnxModel) -> None:
    fused = small_model.with_uint8_input(IMAGENET_NORMALIZATION)
    pixels = torch.randint(0, 256, (2, 8, 8, 3), generator=torch.Generator().manual_seed(1)).byte()
    feeds = {fused.inputs[0].name: pixels.numpy()}
    scores = []
    for content in (fused.serialized(), tensorrt_graph(fused, EngineOptions())):
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        scores.append(torch.from_numpy(session.run(None, feeds)[0]))
    assert torch.equal(*scores)


def test_a_model_of_floats_is_left_as_it_is(small_model: OnnxModel) -> None:
    assert tensorrt_graph(small_model, EngineOptions()) == small_model.serialized()


def test_the_lists_say_which_layers_run_in_fp16(small_model: OnnxModel) -> None:
    every = fp16_layer_names(graph(small_model, "fp16"))
    assert fp16_layer_names(graph(small_model, "fp16", fp32_layers=("conv",))) == every - {"conv"}
    assert fp16_layer_names(graph(small_model, "fp32", fp16_layers=("conv",))) == {"conv"}


@pytest.mark.usefixtures("few_views")
def test_in_int8_a_listed_layer_runs_in_fp16(
    efficientnet_lite0: OnnxModel, tmp_path: Path, photographs: list[bytes]
) -> None:
    for index, data in enumerate(photographs):
        (tmp_path / f"{index}.jpg").write_bytes(data)
    assert efficientnet_lite0.declared_normalization is not None
    model = efficientnet_lite0.with_uint8_input(efficientnet_lite0.declared_normalization)
    proto = graph(model, "int8", calibration_dir=tmp_path, fp16_layers=("/_fc",))
    producers = {name: node.op_type for node in proto.graph.node for name in node.output}
    (last,) = (node for node in proto.graph.node if node.op_type == "Gemm")
    assert fp16_layer_names(proto) == {last.name}
    assert {producers[node.input[1]] for node in proto.graph.node if node.op_type == "Conv"} == {
        "DequantizeLinear"
    }


def test_int8_without_images_says_what_to_name(small_model: OnnxModel) -> None:
    with pytest.raises(EngineError, match="calibration_images"):
        tensorrt_graph(small_model, EngineOptions(precision="int8"))
