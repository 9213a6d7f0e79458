"""What stands behind the baseline's lock on a host without torch2trt, as all test machines are."""

from __future__ import annotations

import logging
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from baseline_trt import baseline_engine
from baseline_trt.baseline_engine import load_baseline_engine, why_not_torch2trt
from baseline_trt.handler import create_handler
from baseline_trt.torch2trt_engine import Torch2TrtEngine
from engine.errors import EngineError
from engine.options import EngineOptions
from engine.registry import EngineChoice, choose_engine
from engine.zoo import open_model
from engine.zoo.store import ZOO
from service.handlers.handler_settings import HandlerSettings
from tests.engines import CPU_ENGINES

TENSORRT = EngineChoice("tensorrt", "fp16", "asked for by name", "cuda")


@pytest.fixture
def torch2trt(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed torch2trt, as far as can be seen without importing it."""
    module = ModuleType("torch2trt")
    module.__spec__ = ModuleSpec("torch2trt", loader=None)
    monkeypatch.setitem(sys.modules, "torch2trt", module)


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_the_chosen_engine_stands_in_and_the_log_says_so(
    engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        handler = create_handler(
            HandlerSettings(engine=engine, model="efficientnet_lite0", max_batch_size=2)
        )
    assert f"engine {engine} is the fallback for torch2trt" in caplog.text
    assert not any(it.levelno > logging.DEBUG for it in caplog.records if "torch2" in it.message)
    assert handler.info().engine == engine
    assert handler.info().settings["max_batch_size"] == "2"
    handler.close()


def test_without_torch2trt_it_says_where_to_find_it() -> None:
    assert "not installed" in str(why_not_torch2trt("resnet50", "fp16"))


@pytest.mark.parametrize(
    ("name", "precision", "reason"),
    [
        ("resnet50", "fp16", None),
        ("efficientnet_lite0", "fp32", None),
        ("mine.onnx", "fp16", "it converts networks of torch, and mine.onnx is an ONNX file"),
        ("resnet50", "int8", "it runs fp32 or fp16, not int8"),
    ],
)
@pytest.mark.usefixtures("torch2trt")
def test_it_is_tried_for_networks_of_torch(name: str, precision: str, reason: str | None) -> None:
    assert why_not_torch2trt(name, precision) == reason


def test_tensorrt_stands_in_with_the_same_batches(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What TensorRT is asked for where it cannot run."""
    asked: list[EngineOptions] = []
    monkeypatch.setattr(
        baseline_engine, "load_engine", lambda *arguments: asked.append(arguments[2])
    )
    model = open_model("efficientnet_lite0")
    with caplog.at_level(logging.INFO):
        load_baseline_engine(
            TENSORRT, model, EngineOptions(max_batch_size=4), "efficientnet_lite0", None
        )
    assert [(it.max_batch_size, it.precision) for it in asked] == [(4, "fp16")]
    assert [str(profile) for profile in asked[0].profiles] == ["1 to 4, usually 1"]
    assert "TensorRT by itself is the fallback for torch2trt: it is not" in caplog.text


def test_torch2trt_needs_a_gpu() -> None:
    network = ZOO["efficientnet_lite0"].build(None)
    with pytest.raises(EngineError, match="there is no GPU 0"):
        Torch2TrtEngine(open_model("efficientnet_lite0"), EngineOptions(), network)


def test_batches_of_one_are_those_that_the_handler_makes(photographs: list[bytes]) -> None:
    handler = create_handler(HandlerSettings(model="efficientnet_lite0", max_batch_size=1))
    assert len(handler.classify(photographs[:3], None)) == 3
    handler.close()


def test_int8_asks_for_images() -> None:
    with pytest.raises(EngineError, match="calibration_images"):
        load_baseline_engine(
            choose_engine("openvino", "int8"),
            open_model("efficientnet_lite0"),
            EngineOptions(),
            "efficientnet_lite0",
            None,
        )
