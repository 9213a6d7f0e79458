"""Where images are decoded without `--decode`. The GPU that this is about is only made up here."""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata
from typing import Any

import pytest
import torch

from engine import registry
from engine.contexts import cuda_device
from pipeline.decoding_place import decoding_place
from pipeline.handler_document import handler_document, place_of_decoding
from pipeline.process_load import process_load
from service.handlers.handler_settings import HandlerSettings

AUTO = HandlerSettings()


@pytest.fixture
def h100(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs with a JPEG engine, and nvImageCodec."""
    for asked in (registry, cuda_device):
        monkeypatch.setattr(asked, "cuda_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(metadata, "version", lambda _: "0.9.0.20")


def words(settings: HandlerSettings) -> str:
    """What the log and `server_info` say."""
    return str(place_of_decoding(settings))


def test_a_host_without_a_gpu_decodes_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "cuda_available", lambda: False)
    assert decoding_place(AUTO, ()) == ("cpu", "auto: the engine runs on the CPU")
    assert [*handler_document(replace(AUTO, model="efficientnet_lite0"))][-2:] == [
        "cpu_decoder",
        "efficientnet_lite0",
    ]


@pytest.mark.usefixtures("h100")
def test_a_gpu_with_a_jpeg_engine_decodes() -> None:
    assert decoding_place(AUTO, ()).name == "gpu"
    assert words(AUTO).startswith("GPU (auto: the GPU has a JPEG engine; --decode cpu")
    load = process_load(AUTO)
    assert (load.gpus, load.decodes_on_gpu) == (1, True)


@pytest.mark.usefixtures("h100")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"engine": "onnxruntime"}, "the engine runs on the CPU"),
        ({"engine": "onnxruntme"}, "there is no such engine"),
        ({"resize": 256, "crop": (224, 224)}, "keeps the aspect ratio"),
        ({"reduced_decoding": True}, "for the CPU's decoder"),
        (
            {"overrides": {"cpu_decoder.instance_num": "3"}},
            "--set cpu_decoder.instance_num is about",
        ),
        ({"overrides": {"resnet50.backend": "Torch[TensorrtTensor]"}}, "resnet50.backend is about"),
        ({"overrides": {"instance_num": "16"}}, "--set instance_num is about the graph"),
        ({"overrides": {"reduced": "true"}}, "--set reduced is about the graph"),
    ],
)
def test_what_needs_the_cpus_decoder_gets_it(changes: dict[str, Any], reason: str) -> None:
    told = words(replace(AUTO, **changes))
    assert told.startswith("CPU (auto: ")
    assert reason in told


@pytest.mark.usefixtures("h100")
@pytest.mark.parametrize("devices", [(), (0,), (1,)])
def test_workers_with_other_gpus_decide_alike(
    devices: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or an image's scores would depend on the connection."""
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda number: ((9, 0), (8, 9))[number]
    )
    assert words(replace(AUTO, devices=devices)) == "CPU (auto: a GPU has no JPEG engine)"


@pytest.mark.usefixtures("h100")
def test_what_both_graphs_understand_decides_nothing() -> None:
    overrides = {"resnet50.max": "8x3x224x224", "batching_timeout": "0", "device_id": "1"}
    assert words(replace(AUTO, overrides=overrides)).startswith("GPU (auto: ")


@pytest.mark.usefixtures("h100")
def test_without_the_extra_the_cpu_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_installed(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", not_installed)
    assert words(AUTO) == (
        "CPU (auto: nvImageCodec is not installed (pip install 'thriftpipe[gpu]'))"
    )


@pytest.mark.usefixtures("h100")
@pytest.mark.parametrize("version", ["0.8.0.22", "0.10.0", "1.9.0"])
def test_with_another_nvimagecodec_the_cpu_decodes(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: version)
    assert words(AUTO) == (
        f"CPU (auto: nvImageCodec {version} is installed, and 0.9 is needed "
        "(pip install 'thriftpipe[gpu]'))"
    )


@pytest.mark.usefixtures("h100")
def test_who_decides_is_not_asked() -> None:
    assert words(replace(AUTO, decode="cpu")) == "CPU (--decode)"
    assert words(replace(AUTO, decode="gpu", devices=(1,))) == "GPU (--decode)"
    assert place_of_decoding(replace(AUTO, config="own.toml")) is None
