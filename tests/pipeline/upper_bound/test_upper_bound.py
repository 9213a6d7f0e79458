"""The in-process upper bound and its parts, with real engines and real JPEGs."""

from __future__ import annotations

import json
import os
import resource
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.cpu.cores import CORES_VARIABLE, available_cores
from engine.errors import EngineError
from pipeline.language.expression import parse_expression
from pipeline.upper_bound import __main__ as upper_bound
from pipeline.upper_bound import threads
from pipeline.upper_bound.__main__ import main
from pipeline.upper_bound.processes import measure_processes, process_counts
from pipeline.upper_bound.threads import PARTS, _split
from service.handlers.handler_settings import HandlerSettings
from tests.image_models import save_means
from tests.robustness.colour_model import SIDE, write_colour_model


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder with three small JPEGs of smooth noise, and with a FIFO, which is not opened."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(3):
        pixels = cv2.resize(generator.integers(0, 256, (12, 16, 3), np.uint8), (160, 120))
        cv2.imwrite(str(folder / f"{number}.jpg"), pixels)
    os.mkfifo(folder / "fifo")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny one."""
    return write_colour_model(tmp_path_factory.mktemp("model")).model


def _options(folder: Path, model: Path) -> list[str]:
    words = ["--img_dir", str(folder), "--model", str(model), "--mean", "0,0,0"]
    return [*words, "--std", "255,255,255", "--engine", "onnxruntime", "--duration_s", "0.1"]


@pytest.fixture(autouse=True)
def _one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nothing starts other processes without need, or warms up for long."""
    monkeypatch.setenv(CORES_VARIABLE, "1")
    monkeypatch.setattr(threads, "_WARM_UP_S", 0.05)


def _measure(
    capsys: pytest.CaptureFixture[str], folder: Path, model: Path, *arguments: str
) -> dict[str, object]:
    assert main([*_options(folder, model), "--batch_sizes", "1,2", *arguments]) == 0
    result: dict[str, object] = json.loads(capsys.readouterr().out)
    return result


@pytest.mark.parametrize("part", PARTS)
def test_every_part_is_measured_at_every_batch_size(
    part: str, capsys: pytest.CaptureFixture[str], photographs: Path, model: Path
) -> None:
    result = _measure(capsys, photographs, model, "--part", part)
    rates = result["by_batch_size"]
    assert isinstance(rates, dict)
    assert sorted(rates) == ["1", "2"]
    assert all(rate > 0 for rate in rates.values())
    assert result["images_per_s"] == max(rates.values())
    assert 1 <= int(str(result["threads"])) <= available_cores()


@pytest.mark.parametrize(
    ("cores", "counts"), [(1, []), (2, [2]), (4, [4]), (8, [2, 8]), (16, [4, 16]), (128, [16])]
)
def test_processes_of_four_cores_and_of_one_are_tried(cores: int, counts: list[int]) -> None:
    assert process_counts(cores) == counts


def _usage_of_children() -> resource.struct_rusage:
    return resource.getrusage(resource.RUSAGE_CHILDREN)


def test_the_upper_bound_is_that_of_the_best_number_of_processes(
    photographs: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv(CORES_VARIABLE)
    words = [*_options(photographs, model), "--batch_sizes", "1"]
    monkeypatch.setattr(sys, "argv", ["pipeline.upper_bound", *words])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(upper_bound.__file__, run_name="__main__")
    assert ended.value.code == 0
    result = json.loads(capsys.readouterr().out)
    rates = result["by_processes"]
    assert list(map(int, rates)) == [1, *process_counts(available_cores())]
    assert result["images_per_s"] == max(rates.values()) == rates[str(result["processes"])]
    assert result["processes"] * result["threads"] <= max(available_cores(), result["processes"])


def test_a_process_that_fails_stops_the_others(model: Path) -> None:
    """And what they have used is that of this process's children, as the benchmark reads it."""
    settings = HandlerSettings(
        model=str(model), mean=(0, 0, 0), std=(255, 255, 255), engine="onnxruntime"
    )
    before = _usage_of_children()
    with pytest.raises(
        EngineError,
        match="does not pass the pipeline: node 'cpu_decoder': 8 bytes that",
    ):
        measure_processes(settings, [b"no image"], 1, 0.1, 2, 2)
    used = _usage_of_children()
    assert used.ru_utime > before.ru_utime
    assert used.ru_maxrss > 2**16


def test_decoding_alone_has_a_thread_a_core(
    capsys: pytest.CaptureFixture[str],
    photographs: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(CORES_VARIABLE)
    assert _measure(capsys, photographs, model, "--part", "decode")["threads"] == available_cores()


@pytest.mark.parametrize(
    ("whole", "before", "model"),
    [
        ("TensorrtTensor", None, "TensorrtTensor"),
        ("Torch[TensorrtTensor]", None, "Torch[TensorrtTensor]"),
        ("S[DecodeMat,ResizeMat,TensorrtTensor]", "S[DecodeMat,ResizeMat]", "S[TensorrtTensor]"),
        (
            "S[DecodeMat,Torch[S[ResizeMat,TensorrtTensor]]]",
            "S[DecodeMat,Torch[S[ResizeMat]]]",
            "S[Torch[S[TensorrtTensor]]]",
        ),
    ],
)
def test_a_node_is_split_before_its_model(whole: str, before: str | None, model: str) -> None:
    head, tail = _split(parse_expression(whole))
    assert (None if head is None else str(head)) == before
    assert str(tail) == model


def test_one_node_for_everything_has_parts_too(
    capsys: pytest.CaptureFixture[str], photographs: Path, model: Path, tmp_path: Path
) -> None:
    """As in a configuration for a GPU: decoding and the model in one expression."""
    config = tmp_path / "one.toml"
    config.write_text(
        '[all]\nbackend = "S[DecodeMat,ResizeMat,cvtColorMat,Mat2Tensor,TensorrtTensor]"\n'
        f'resize_h = {SIDE}\nresize_w = {SIDE}\nmodel = "{model}"\n'
        'mean = "0, 0, 0"\nstd = "255, 255, 255"\n'
    )
    for part in PARTS:
        result = _measure(capsys, photographs, model, "--part", part, "--config", str(config))
        assert float(str(result["images_per_s"])) > 0


def test_a_model_of_any_size_keeps_the_one_that_it_is_given(
    capsys: pytest.CaptureFixture[str], photographs: Path, tmp_path: Path
) -> None:
    means = save_means(tmp_path / "means.onnx", "nhwc", size="side")
    words = ["--input_size", "8", "--resize", "12", "--crop", "8", "--output_activation", "none"]
    result = _measure(capsys, photographs, means, *words, "--color", "bgr")
    assert float(str(result["images_per_s"])) > 0


def test_a_model_that_gets_tensors_has_nothing_that_decodes(
    capsys: pytest.CaptureFixture[str], photographs: Path, model: Path, tmp_path: Path
) -> None:
    config = tmp_path / "model.toml"
    config.write_text(f'[net]\nbackend = "TensorrtTensor"\nmodel = "{model}"\n')
    words = ["--img_dir", str(photographs), "--config", str(config), "--part", "decode"]
    assert main(words) == 2
    assert "nothing stands before TensorrtTensor" in capsys.readouterr().err


def test_a_file_that_is_no_image_is_told_or_skipped(
    capsys: pytest.CaptureFixture[str], photographs: Path, model: Path
) -> None:
    (photographs / "9.jpg").write_bytes(b"no image")
    words = [*_options(photographs, model), "--part", "engine", "--batch_sizes", "1"]
    assert main(words) == 2
    others, bad, error = capsys.readouterr().err.splitlines()
    assert others.endswith("/fifo")
    assert bad.startswith(f"{photographs / '9.jpg'}: 8 bytes that do not decode")
    assert error.startswith("error: 1 of 4 images cannot be used")
    assert main([*words, "--skip_bad_images"]) == 0


@pytest.mark.parametrize(("one", "other"), [("_", "-"), ("-", "_")])
def test_options_take_dashes_and_underscores(
    one: str, other: str, capsys: pytest.CaptureFixture[str], photographs: Path, model: Path
) -> None:
    given = ["--batch_sizes", "1", "--output-activation", "none", *_options(photographs, model)[2:]]
    words = [
        f"--{word[2:].replace(one, other)}" if word.startswith("--") else word for word in given
    ]
    assert main([f"--img{other}dir", str(photographs), *words]) == 0
    assert json.loads(capsys.readouterr().out)["by_batch_size"].keys() == {"1"}
