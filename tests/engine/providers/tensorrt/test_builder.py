"""The builder, for real: TensorRT for RTX builds for a GPU that is not there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from engine.errors import EngineError
from engine.normalization import IMAGENET_NORMALIZATION
from engine.onnx_graph.model import OnnxModel
from engine.options import BatchProfile, EngineOptions
from engine.providers.tensorrt.builder import BuildSettings, build_plan, logger_of
from engine.providers.tensorrt.graph import tensorrt_graph

# Its wheels are for Linux on x86-64.
trt = pytest.importorskip("tensorrt_rtx_bindings")
# TensorRT for RTX says that its timing caches hold nothing.
pytestmark = pytest.mark.filterwarnings("ignore:.*Timing cache:DeprecationWarning")

SETTINGS = BuildSettings((BatchProfile(1, 4),), max_workspace_bytes=2**30)


class Configuration:
    """Builds for an RTX 40 GPU, and keeps the last builder configuration to look at."""

    def __call__(self, config: Any) -> None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM89, 0)
        self.workspace_bytes = config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE)
        self.tf32 = config.get_flag(trt.BuilderFlag.TF32)
        self.profiles = config.num_optimization_profiles


def build(graph: bytes, settings: BuildSettings = SETTINGS) -> bytes:
    return build_plan(trt, graph, settings, Configuration())


@pytest.mark.parametrize(
    ("name", "precision"),
    [("efficientnet_lite0", "fp32"), ("efficientnet_lite0", "fp16"), ("resnet50", "fp16")],
)
def test_the_models_of_the_zoo_are_built(
    name: str, precision: str, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(name)
    fused = model.with_uint8_input(model.declared_normalization)
    plan = build(tensorrt_graph(fused, EngineOptions(precision=precision)))
    weights_bytes = len(model.serialized()) // (1 if precision == "fp32" else 2)
    assert 0.9 * weights_bytes < len(plan) < 1.4 * weights_bytes


@pytest.mark.usefixtures("few_views")
def test_a_model_is_built_in_int8(
    efficientnet_lite0: OnnxModel, tmp_path: Path, photographs: list[bytes]
) -> None:
    for index, data in enumerate(photographs):
        (tmp_path / f"{index}.jpg").write_bytes(data)
    assert efficientnet_lite0.declared_normalization is not None
    fused = efficientnet_lite0.with_uint8_input(efficientnet_lite0.declared_normalization)
    options = EngineOptions(
        precision="int8",
        calibration_dir=tmp_path,
        fp32_layers=("/_conv_stem",),
        fp16_layers=("/_fc",),
    )
    assert build(tensorrt_graph(fused, options))


def test_a_model_of_floats_is_built(small_model: OnnxModel) -> None:
    assert build(tensorrt_graph(small_model, EngineOptions(precision="fp16")))


def test_settings_reach_tensorrt(small_model: OnnxModel) -> None:
    configuration = Configuration()
    settings = BuildSettings((BatchProfile(1, 1), BatchProfile(2, 8)), 512 * 2**20)
    build_plan(trt, small_model.serialized(), settings, configuration)
    assert configuration.workspace_bytes == 512 * 2**20
    assert configuration.profiles == 2
    assert not configuration.tf32


@pytest.mark.parametrize("in_pixels", [False, True])
def test_a_profile_spans_the_sizes_that_a_model_leaves_open(
    small_proto: Callable[..., onnx.ModelProto], tmp_path: Path, in_pixels: bool
) -> None:
    onnx.save(small_proto(size="any"), tmp_path / "open.onnx")
    model = OnnxModel.load(tmp_path / "open.onnx").with_limits([[(3, 3), (8, 32), (8, 32)]])
    low, high = (3, 8, 8), (3, 32, 32)
    if in_pixels:
        model = model.with_uint8_input(IMAGENET_NORMALIZATION)
        low, high = (8, 8, 3), (32, 32, 3)
    (spec,) = model.inputs
    graph = tensorrt_graph(model, EngineOptions(precision="fp16"))
    assert build(graph, replace(SETTINGS, limits={spec.name: (low, high)}))


def test_the_facts_tell_settings_apart() -> None:
    settings = BuildSettings((BatchProfile(1, 1), BatchProfile(2, 8)), 2**20)
    assert settings.facts() == {"profiles": "1 to 1; 2 to 8", "max_workspace_bytes": "1048576"}
    limited = replace(settings, limits={"image": ((3, 8), (3, 9))})
    assert limited.facts().keys() - settings.facts().keys() == {"limits"}
    usual = BuildSettings((BatchProfile(1, 8, usual_rows=1),), 2**20)
    assert usual.facts()["profiles"] == "1 to 8, usually 1"


def test_a_usual_batch_lies_within_the_profile() -> None:
    with pytest.raises(EngineError, match="from its min to its max, got 9"):
        BatchProfile(1, 8, usual_rows=9)


def test_the_types_of_the_graph_are_those_that_run(small_model: OnnxModel) -> None:
    """A graph that mixes types without a Cast is refused: nothing is converted silently."""
    proto = onnx.load_model_from_string(
        tensorrt_graph(small_model, EngineOptions(precision="fp16"))
    )
    (cast,) = (node for node in proto.graph.node if node.name == "image/fp16/cast")
    (conv,) = (node for node in proto.graph.node if node.name == "conv")
    conv.input[0] = cast.input[0]
    proto.graph.node.remove(cast)
    with pytest.raises(EngineError, match=r"TensorRT cannot (read the graph|build the engine): \S"):
        build(proto.SerializeToString())


def test_a_graph_that_the_parser_refuses_is_one_line_with_its_reason(
    small_proto: Callable[..., onnx.ModelProto],
) -> None:
    proto = small_proto()
    proto.graph.node[0].op_type = "Unheard"
    proto.graph.node[0].domain = "elsewhere"
    proto.opset_import.append(onnx.helper.make_opsetid("elsewhere", 1))
    with pytest.raises(
        EngineError, match=r"cannot read the graph: layer 'conv' \(Unheard\): \S"
    ) as caught:
        build(proto.SerializeToString())
    assert "\n" not in str(caught.value)


def test_uint8_is_refused_where_nothing_casts_it_first(small_model: OnnxModel) -> None:
    """Why `tensorrt_graph` lets the Transpose and the Cast change places."""
    fused = small_model.with_uint8_input(IMAGENET_NORMALIZATION)
    with pytest.raises(EngineError, match="UInt8"):
        build(fused.serialized())
    assert build(tensorrt_graph(fused, EngineOptions()))


class TestTimingCache:
    def test_it_is_written_and_read_again(self, small_model: OnnxModel, tmp_path: Path) -> None:
        path = tmp_path / "timing.cache"
        settings = BuildSettings((BatchProfile(1, 4),), 2**30, path)
        build(small_model.serialized(), settings)
        content = path.read_bytes()
        assert content
        build(small_model.serialized(), settings)
        assert path.read_bytes() == content

    def test_what_is_no_timing_cache_is_replaced(
        self, small_model: OnnxModel, tmp_path: Path
    ) -> None:
        path = tmp_path / "timing.cache"
        path.write_bytes(b"no timing cache")
        settings = BuildSettings((BatchProfile(1, 4),), 2**30, path)
        build(small_model.serialized(), settings)
        assert path.read_bytes() != b"no timing cache"

    def test_a_folder_that_is_not_there_is_named(
        self, small_model: OnnxModel, tmp_path: Path
    ) -> None:
        path = tmp_path / "nowhere" / "timing.cache"
        settings = BuildSettings((BatchProfile(1, 4),), 2**30, path)
        with pytest.raises(EngineError, match=r"cannot write the timing cache .*nowhere"):
            build(small_model.serialized(), settings)


def test_messages_go_to_our_log_and_errors_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    log = logger_of(trt)
    assert log is logger_of(trt)
    with caplog.at_level(logging.DEBUG):
        log.log(trt.ILogger.WARNING, "slow")
        log.log(trt.ILogger.ERROR, "broken\n  in two")
        log.log(trt.ILogger.INFO, "a remark")
    levels = {record.levelname for record in caplog.records if "slow" in record.message}
    assert levels == {"WARNING"}
    assert log.last_error == "broken in two"
