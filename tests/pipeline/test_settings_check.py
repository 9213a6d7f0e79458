"""Which mistakes of the service's settings are found before a replica starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from interfaces.messages import to_json
from pipeline.settings_check import mistakes
from service.errors import ConfigurationError
from service.handlers.handler_settings import HandlerSettings
from service.handlers.process_load import MISTAKE_EXIT_CODE
from service.processes.handler_program import check_settings
from tests.robustness.colour_model import write_colour_model

ON_CPU = "onnxruntime"
FILE = """
[decode]
backend = "S[DecodeMat,ResizeMat,cvtColorMat,Mat2Tensor]"
resize_h = 32
resize_w = 32
next = "infer"
[infer]
backend = "TensorrtTensor"
model = "{model}"
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(write_colour_model(tmp_path).model)


@pytest.fixture
def config(tmp_path: Path, model: Path) -> Path:
    path = tmp_path / "own.toml"
    path.write_text(FILE.format(model=model))
    return path


def test_what_can_work_has_none(model: Path, config: Path) -> None:
    for settings in (
        HandlerSettings(),
        HandlerSettings(engine=ON_CPU, model=str(model)),
        HandlerSettings(engine=ON_CPU, config=str(config)),
        HandlerSettings(engine=ON_CPU, config=str(config), model=str(model)),
    ):
        assert mistakes(settings) == []


def test_what_this_host_lacks_is_none(model: Path, config: Path) -> None:
    assert mistakes(HandlerSettings(engine="tensorrt", config=str(config))) == []
    assert mistakes(HandlerSettings(engine="tensorrt", model=str(model))) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"overrides": {"decode.resize_hh": "3"}}, "resize_hh"),
        ({"output": "logit"}, "logit"),
        ({"precision": "fp99"}, "fp99"),
        ({"mean": (1.0, 2.0), "std": (1.0, 1.0)}, "mean"),
    ],
)
def test_a_setting_that_cannot_work_is_one(
    config: Path, change: dict[str, object], told: str
) -> None:
    [line] = mistakes(HandlerSettings(engine=ON_CPU, config=str(config), **change))  # type: ignore[arg-type]
    assert told in line


def test_so_is_a_model_that_cannot_be_read(tmp_path: Path, config: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    config.write_text(FILE.format(model=broken))
    for settings in (
        HandlerSettings(engine=ON_CPU, model=str(broken)),
        HandlerSettings(engine=ON_CPU, config=str(config)),
    ):
        [line] = mistakes(settings)
        assert "broken.onnx" in line


def test_the_program_tells_it_in_one_line_and_its_caller_refuses_it(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text("[a]\nbackend = 'DecodeMta'\n")
    settings = HandlerSettings(config=str(path))
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.settings_check"],
        input=to_json(settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (MISTAKE_EXIT_CODE, "")
    (line,) = done.stderr.splitlines()
    with pytest.raises(ConfigurationError, match="did you mean 'DecodeMat'") as raised:
        check_settings("pipeline", settings)
    assert str(raised.value) == line


def test_a_handler_without_such_a_program_is_not_checked() -> None:
    check_settings("null", HandlerSettings(model="none.onnx"))
