"""The provider up to where it needs a GPU: with TensorRT for RTX in place of its package."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest

from engine.cache.encrypted_file import ENVIRONMENT_VARIABLE
from engine.errors import EngineError
from engine.interface import Engine
from engine.normalization import IMAGENET_NORMALIZATION
from engine.onnx_graph.model import OnnxModel
from engine.options import BatchProfile, EngineOptions

# Its wheels are for Linux on x86-64.
tensorrt_rtx_bindings = pytest.importorskip("tensorrt_rtx_bindings")


@pytest.fixture(scope="module")
def provider() -> ModuleType:
    """The provider's module, working with TensorRT for RTX."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorrt", tensorrt_rtx_bindings)
        patch.delitem(sys.modules, "engine.providers.tensorrt.engine", raising=False)
        import engine.providers.tensorrt.engine as module

        yield module
        del sys.modules["engine.providers.tensorrt.engine"]


@pytest.fixture(scope="module")
def build_only(provider: ModuleType) -> type[Engine]:
    """The engine without the GPU: it builds for one that is not there, and loads nothing."""

    class BuildOnly(provider.TensorRtEngine):  # type: ignore[misc, name-defined]
        gpu = "RTX 4090"

        def _load(self) -> None:
            self.content = self.plan(self.gpu)

        def _configure(self, config: Any) -> None:
            config.num_compute_capabilities = 1
            config.set_compute_capability(tensorrt_rtx_bindings.ComputeCapability.SM89, 0)

    return BuildOnly


@pytest.fixture
def options(tmp_path: Path) -> EngineOptions:
    return EngineOptions(precision="fp16", max_batch_size=4, cache_path=tmp_path / "small.trt")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def test_without_a_gpu_it_says_so(provider: ModuleType, small_model: OnnxModel) -> None:
    with pytest.raises(EngineError, match="there is no GPU 0: this process sees no NVIDIA GPU"):
        provider.TensorRtEngine(small_model, EngineOptions())


def test_a_precision_that_it_lacks_is_refused(provider: ModuleType, small_model: OnnxModel) -> None:
    with pytest.raises(EngineError, match=r"'tensorrt' runs fp32 or fp16 or int8, got .*'bf16'"):
        provider.TensorRtEngine(small_model, EngineOptions(precision="bf16"))


def test_an_engine_is_built_once(
    build_only: type[Any],
    small_model: OnnxModel,
    options: EngineOptions,
    log: pytest.LogCaptureFixture,
) -> None:
    first = build_only(small_model, options)
    assert f"building cache {options.cache_path}" in log.text
    assert build_only(small_model, options).content == first.content
    assert f"using cache {options.cache_path}" in log.text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"precision": "fp32"}, "graph, precision"),
        ({"fp32_layers": ("conv",)}, "graph"),
        ({"profiles": (BatchProfile(1, 1), BatchProfile(2, 4))}, "profiles"),
        ({"max_batch_size": 8}, "profiles"),
        ({"max_workspace_bytes": 2**28}, "max_workspace_bytes"),
    ],
)
def test_other_settings_are_another_engine(
    build_only: type[Any],
    small_model: OnnxModel,
    options: EngineOptions,
    changes: dict[str, Any],
    reason: str,
    log: pytest.LogCaptureFixture,
) -> None:
    build_only(small_model, options)
    build_only(small_model, replace(options, **changes))
    assert f"again: it was made for another {reason}" in log.text


def test_other_sizes_are_another_engine(
    build_only: type[Any],
    small_proto: Callable[..., onnx.ModelProto],
    options: EngineOptions,
    tmp_path: Path,
    log: pytest.LogCaptureFixture,
) -> None:
    onnx.save(small_proto(size="any"), tmp_path / "open.onnx")
    model = OnnxModel.load(tmp_path / "open.onnx")
    for side in (16, 32):
        limited = model.with_limits([[(3, 3), (8, side), (8, side)]])
        build_only(limited.with_uint8_input(IMAGENET_NORMALIZATION), options)
    assert "again: it was made for another limits" in log.text


def test_another_gpu_or_version_is_another_engine(
    build_only: type[Any],
    small_model: OnnxModel,
    options: EngineOptions,
    log: pytest.LogCaptureFixture,
) -> None:
    class OtherGpu(build_only):  # type: ignore[misc, valid-type]
        gpu = "RTX 4080"

    class OtherVersion(build_only):  # type: ignore[misc, valid-type]
        versions = {"tensorrt": "10.3.0"}  # noqa: RUF012

    build_only(small_model, options)
    OtherGpu(small_model, options)
    assert "again: it was made for another device" in log.text
    build_only(small_model, options)
    OtherVersion(small_model, options)
    assert "again: it was made for another provider version" in log.text


def test_another_model_is_another_engine(
    build_only: type[Any],
    small_model: OnnxModel,
    small_proto: Callable[..., onnx.ModelProto],
    options: EngineOptions,
    tmp_path: Path,
    log: pytest.LogCaptureFixture,
) -> None:
    onnx.save(small_proto(last="Sigmoid"), tmp_path / "other.onnx")
    build_only(small_model, options)
    build_only(OnnxModel.load(tmp_path / "other.onnx"), options)
    assert "again: it was made for another model, graph" in log.text


def test_an_encrypted_engine_needs_its_key(
    build_only: type[Any],
    small_model: OnnxModel,
    options: EngineOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "0f" * 32)
    options = replace(options, cache_path=tmp_path / "small.trt.encrypted")
    first = build_only(small_model, options)
    assert build_only(small_model, options).content == first.content
    assert first.content not in (tmp_path / "small.trt.encrypted").read_bytes()
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "1f" * 32)
    with pytest.raises(EngineError, match="the key does not open it"):
        build_only(small_model, options)


def test_pixels_and_several_profiles_are_built(
    build_only: type[Any], small_model: OnnxModel
) -> None:
    fused = small_model.with_uint8_input(IMAGENET_NORMALIZATION)
    profiles = (BatchProfile(1, 1), BatchProfile(1, 4))
    engine = build_only(fused, EngineOptions(precision="fp16", max_batch_size=4, profiles=profiles))
    assert engine.profiles == profiles
    assert engine.content


def test_without_profiles_every_batch_fits_one(
    build_only: type[Any], small_model: OnnxModel
) -> None:
    assert build_only(small_model, EngineOptions(max_batch_size=4)).profiles == (
        BatchProfile(1, 4),
    )


def test_a_model_that_cannot_be_built_is_named(
    build_only: type[Any], small_proto: Callable[..., onnx.ModelProto], tmp_path: Path
) -> None:
    proto = small_proto()
    proto.graph.node[0].op_type = "Unheard"
    proto.graph.node[0].domain = "elsewhere"
    proto.opset_import.append(onnx.helper.make_opsetid("elsewhere", 1))
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(EngineError, match=r"m\.onnx: TensorRT cannot read the graph") as caught:
        build_only(OnnxModel.load(tmp_path / "m.onnx"), EngineOptions())
    assert "\n" not in str(caught.value)
