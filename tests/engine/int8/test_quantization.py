from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from engine.errors import EngineError
from engine.int8.quantization import quantized_graph
from engine.normalization import IMAGENET_NORMALIZATION
from engine.onnx_graph.layer_names import layer_name
from engine.onnx_graph.model import OnnxModel
from engine.options import EngineOptions
from engine.registry import choose_engine, load_engine
from tests.engine.int8.graphs import fused, scores
from tests.engines import INT8_ENGINES


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("THRIFTPIPE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.usefixtures("few_views")
def test_a_model_of_floats_gives_what_the_one_of_pixels_gives(
    efficientnet_lite0: OnnxModel, photo_batch: torch.Tensor, photo_folder: Path
) -> None:
    """The baseline normalises before the engine; both calibrate with the same pixels."""
    normalization = efficientnet_lite0.declared_normalization
    assert normalization is not None
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in normalization.per_channel())
    options = EngineOptions(calibration_dir=photo_folder, calibration_normalization=normalization)
    floats = scores(
        "openvino", "int8", efficientnet_lite0, (photo_batch.float() - mean) / std, options
    )
    options = EngineOptions(calibration_dir=photo_folder)
    pixels = scores("openvino", "int8", fused(efficientnet_lite0), photo_batch, options)
    assert torch.equal(floats.argmax(dim=1), pixels.argmax(dim=1))
    assert (floats - pixels).abs().max() < 0.05


@pytest.mark.usefixtures("few_views")
def test_products_are_quantised_and_scores_are_not(
    efficientnet_lite0: OnnxModel, photo_folder: Path
) -> None:
    model = fused(efficientnet_lite0)
    options = EngineOptions(calibration_dir=photo_folder)
    for symmetric in (False, True):
        graph = quantized_graph(model, options, symmetric=symmetric).graph
        producers = {name: node for node in graph.node for name in node.output}
        products = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
        assert len(products) == 50
        for node in products:
            sources = [producers[name].op_type for name in node.input[:2]]
            assert sources == ["DequantizeLinear"] * 2, node.name
        assert producers[graph.output[0].name].op_type == "Softmax"
        (pixels,) = (node for node in graph.node if node.op_type == "Cast")
        readers = {node.op_type for node in graph.node if pixels.output[0] in node.input}
        assert readers == {"Mul"}


@pytest.mark.usefixtures("few_views")
def test_the_symmetric_graph_is_what_tensorrt_takes(
    efficientnet_lite0: OnnxModel, photo_folder: Path
) -> None:
    """Zero points of 0, int8 throughout, biases in fp32, and nothing between Conv and Clip."""
    options = EngineOptions(calibration_dir=photo_folder)
    graph = quantized_graph(fused(efficientnet_lite0), options, symmetric=True).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero_point = weights[node.input[2]]
            assert zero_point.data_type == TensorProto.INT8
            assert not numpy_helper.to_array(zero_point).any()
        if node.op_type == "Conv":
            assert weights[node.input[2]].data_type == TensorProto.FLOAT
        if node.op_type == "Clip":
            assert producers[node.input[0]].op_type == "Conv"


@pytest.mark.usefixtures("few_views")
def test_listed_layers_are_left_as_they_are(
    efficientnet_lite0: OnnxModel, photo_folder: Path
) -> None:
    options = EngineOptions(
        calibration_dir=photo_folder, fp32_layers=("/_conv_stem",), fp16_layers=("/_fc",)
    )
    graph = quantized_graph(fused(efficientnet_lite0), options, symmetric=True).graph
    producers = {name: node.op_type for node in graph.node for name in node.output}
    quantised = {
        layer_name(node)
        for node in graph.node
        if node.op_type in ("Conv", "Gemm") and producers.get(node.input[1]) == "DequantizeLinear"
    }
    assert len(quantised) == 48
    assert not any("/_conv_stem" in name or "/_fc" in name for name in quantised)


@pytest.fixture
def image_model(small_proto: Callable[..., onnx.ModelProto], tmp_path: Path) -> OnnxModel:
    onnx.save(small_proto(), tmp_path / "small.onnx")
    return OnnxModel.load(tmp_path / "small.onnx")


def test_a_graph_is_made_once_for_a_model_and_its_images(
    image_model: OnnxModel,
    own_cache: Path,
    photo_folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    model = image_model.with_uint8_input(IMAGENET_NORMALIZATION)
    options = EngineOptions(calibration_dir=photo_folder)
    first = quantized_graph(model, options, symmetric=False)
    assert "quantising small.onnx with 6 images (once)" in caplog.text
    assert "Increased scale" not in caplog.text
    caplog.clear()
    assert quantized_graph(model, options, symmetric=False) == first
    assert caplog.text == ""
    quantized_graph(model, options, symmetric=True)
    other = EngineOptions(calibration_dir=photo_folder, fp32_layers=("conv",))
    quantized_graph(model, other, symmetric=False)
    assert len(list(own_cache.glob("*.onnx"))) == 3


@pytest.mark.parametrize("opset", [8, 11, 13, 21])
@pytest.mark.parametrize("name", INT8_ENGINES)
def test_models_of_all_ages_are_quantised(
    name: str,
    opset: int,
    small_proto: Callable[..., onnx.ModelProto],
    tmp_path: Path,
    photo_folder: Path,
) -> None:
    """Scales a channel came with opset 13."""
    onnx.save(small_proto(opset=opset), tmp_path / "small.onnx")
    model = OnnxModel.load(tmp_path / "small.onnx").with_uint8_input(IMAGENET_NORMALIZATION)
    pixels = torch.full((1, 3, 8, 8), 100, dtype=torch.uint8)
    expected = scores(name, "fp32", model, pixels, EngineOptions())
    found = scores(name, "int8", model, pixels, EngineOptions(calibration_dir=photo_folder))
    assert (found - expected).abs().max() < 0.03


def test_pixels_need_no_mean_and_std_and_ignore_them(
    image_model: OnnxModel, photo_folder: Path
) -> None:
    model = image_model.with_uint8_input(IMAGENET_NORMALIZATION)
    options = EngineOptions(
        calibration_dir=photo_folder, calibration_normalization=IMAGENET_NORMALIZATION
    )
    given = quantized_graph(model, options, symmetric=False)
    options = EngineOptions(calibration_dir=photo_folder)
    assert given == quantized_graph(model, options, symmetric=False)


def test_a_model_of_floats_needs_mean_and_std(image_model: OnnxModel, photo_folder: Path) -> None:
    with pytest.raises(EngineError, match=r"small\.onnx takes floats: .* give mean and std"):
        quantized_graph(image_model, EngineOptions(calibration_dir=photo_folder), symmetric=False)


@pytest.mark.parametrize("name", INT8_ENGINES)
def test_an_engine_without_images_says_what_to_name(name: str, image_model: OnnxModel) -> None:
    with pytest.raises(EngineError, match="calibration_images"):
        load_engine(choose_engine(name, "int8"), image_model, EngineOptions())


def test_another_set_of_images_is_another_engine(
    image_model: OnnxModel,
    photo_folder: Path,
    photographs: list[bytes],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    others = tmp_path / "others"
    others.mkdir()
    for index, data in enumerate(photographs[:3]):
        (others / f"{index}.jpg").write_bytes(data)
    model = image_model.with_uint8_input(IMAGENET_NORMALIZATION)
    for folder in (photo_folder, others):
        options = EngineOptions(calibration_dir=folder, cache_path=tmp_path / "small.cache")
        load_engine(choose_engine("onnxruntime", "int8"), model, options)
    assert "it was made for another graph" in caplog.text


def test_a_cache_folder_that_cannot_be_written_is_named(
    image_model: OnnxModel,
    photo_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("THRIFTPIPE_CACHE_DIR", str(tmp_path / "file" / "cache"))
    options = EngineOptions(calibration_dir=photo_folder)
    assert quantized_graph(
        image_model.with_uint8_input(IMAGENET_NORMALIZATION), options, symmetric=False
    ).graph.node
    (line,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert line.startswith("cannot keep")
    assert line.endswith("THRIFTPIPE_CACHE_DIR names another folder")
