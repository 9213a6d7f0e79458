"""The document that the service's options make of a file: which setting wins."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from pipeline.backends.assembly import fitting_instance_num
from pipeline.config import parse_config
from pipeline.errors import PipelineConfigError
from pipeline.handler_document import handler_document
from service.handlers.handler_settings import HandlerSettings
from tests.engines import CPU_ENGINES

SHIPPED = str(files("pipeline") / "configs" / "resnet50_cpu.toml")


def test_the_shipped_file_is_a_template_for_any_model() -> None:
    document = handler_document(HandlerSettings(model="efficientnet_lite0"))
    assert list(document)[-2:] == ["cpu_decoder", "efficientnet_lite0"]
    assert document["cpu_decoder"]["next"] == "efficientnet_lite0"
    node = document["efficientnet_lite0"]
    assert "efficientnet_lite0" in node["model"]
    assert node["mean"] == pytest.approx([0.498 * 255])
    assert node["std"] == pytest.approx([0.502 * 255])
    assert node["max"] == "1x3x224x224"


@pytest.mark.parametrize("cores", [1, 16])
@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_instances_follow_the_cores(
    engine: str, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr("engine.cpu.cores.cgroup_quota_cores", lambda: None)
    settings = HandlerSettings(engine=engine, model="efficientnet_lite0")
    nodes = parse_config(handler_document(settings)).nodes
    fitting = {
        name: fitting_instance_num(node.backend, node.instance_num, node.settings, engine)
        for name, node in nodes.items()
    }
    assert fitting == {"cpu_decoder": cores, "efficientnet_lite0": cores}
    by_template, by_model = "resnet50.instance_num", "efficientnet_lite0.instance_num"
    for key in ("instance_num", by_template, by_model):
        nodes = parse_config(handler_document(replace(settings, overrides={key: "1"}))).nodes
        assert nodes["efficientnet_lite0"].instance_num == 1
    assert handler_document(replace(settings, config=SHIPPED))["instance_num"] == 4


def test_a_file_that_is_named_is_taken_at_its_word() -> None:
    document = handler_document(HandlerSettings(config=SHIPPED, model="efficientnet_lite0"))
    assert document["resnet50"]["mean"] == "123.675, 116.28, 103.53"
    assert "efficientnet_lite0" in document["resnet50"]["model"]


@pytest.mark.parametrize(
    "text",
    [
        """
        backend = "S[DecodeMat,ResizeMat,Mat2Tensor,TensorrtTensor,SyncTensor]"
        resize_h = 224
        resize_w = 224
        model = "efficientnet_lite0"
        max = 4
        """,
        """
        [global]
        max = 4
        [node]
        backend = "TensorrtTensor"
        model = "efficientnet_lite0"
        next = "node.again"
        [node.again]
        """,
    ],
)
def test_every_form_of_a_file_takes_flags(text: str, tmp_path: Path) -> None:
    path = tmp_path / "form.toml"
    path.write_text(text)
    document = handler_document(
        HandlerSettings(config=str(path), precision="fp32", overrides={"max": "2"})
    )
    node = parse_config(document).nodes["node"]
    assert (node.settings["precision"], node.settings["output"]) == ("fp32", "auto")
    assert str(node.settings["max"]) == "2"


def test_flags_win_over_the_file_and_set_over_everything() -> None:
    document = handler_document(
        HandlerSettings(
            config=SHIPPED,
            mean=(1.0, 2.0, 3.0),
            std=(4.0, 5.0, 6.0),
            overrides={"resnet50.max": "8x3x224x224", "batching_timeout": "0"},
        )
    )
    assert document["resnet50"]["mean"] == [1.0, 2.0, 3.0]
    assert document["resnet50"]["std"] == [4.0, 5.0, 6.0]
    assert document["resnet50"]["max"] == "8x3x224x224"
    assert document["batching_timeout"] == 0


def test_calibration_images_win_over_the_file(tmp_path: Path) -> None:
    for config in (None, SHIPPED):
        document = handler_document(
            HandlerSettings(
                config=config, model="efficientnet_lite0", calibration_images=str(tmp_path)
            )
        )
        node = "efficientnet_lite0" if config is None else "resnet50"
        assert document[node]["calibration_images"] == str(tmp_path)


@pytest.mark.parametrize("config", [None, SHIPPED])
def test_an_option_is_what_set_would_be(config: str | None) -> None:
    """Also for a key that the template makes of the model."""
    settings = HandlerSettings(config=config, model="efficientnet_lite0", devices=(1, 3))
    by_option = replace(settings, output="scores", output_activation="none", precision="fp32")
    by_set = replace(
        settings,
        overrides={
            "resnet50.output": "scores",
            "resnet50.output_activation": "none",
            "resnet50.precision": "fp32",
        },
    )
    assert handler_document(by_option) == handler_document(by_set)
    assert handler_document(by_option)["device_id"] == "1,3"


def test_a_mistake_in_the_file_is_told_before_the_model_is_looked_for(tmp_path: Path) -> None:
    file = tmp_path / "file.toml"
    file.write_text('[net]\nbackend = "TensorrtTensor"\nmaxx = 4\n')
    with pytest.raises(PipelineConfigError, match=r"\[net\]: unknown key 'maxx'"):
        handler_document(HandlerSettings(config=str(file), model="no_such_model"))
