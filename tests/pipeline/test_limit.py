"""The in-process limit and its parts, with real engines and real photographs."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.cpu import available_cores
from pipeline.expression import parse_expression
from pipeline.limit import PARTS, _split, main


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder with three small JPEGs of smooth noise."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(3):
        pixels = cv2.resize(generator.integers(0, 256, (12, 16, 3), np.uint8), (160, 120))
        cv2.imwrite(str(folder / f"{number}.jpg"), pixels)
    return folder


def _measure(
    capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str
) -> dict[str, object]:
    words = ["--img_dir", str(folder), "--model", "efficientnet_lite0", "--engine", "onnxruntime"]
    assert main([*words, "--duration_s", "0.1", "--batch_sizes", "1,2", *arguments]) == 0
    result: dict[str, object] = json.loads(capsys.readouterr().out)
    return result


@pytest.mark.parametrize("part", PARTS)
def test_every_part_is_measured_at_every_batch_size(
    part: str, capsys: pytest.CaptureFixture[str], photographs: Path
) -> None:
    result = _measure(capsys, photographs, "--part", part)
    rates = result["by_batch_size"]
    assert isinstance(rates, dict)
    assert sorted(rates) == ["1", "2"]
    assert all(rate > 0 for rate in rates.values())
    assert result["images_per_s"] == max(rates.values())
    assert 1 <= int(str(result["threads"])) <= available_cores()


def test_decoding_alone_has_a_thread_a_core(
    capsys: pytest.CaptureFixture[str], photographs: Path
) -> None:
    assert _measure(capsys, photographs, "--part", "decode")["threads"] == available_cores()


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
    capsys: pytest.CaptureFixture[str], photographs: Path, tmp_path: Path
) -> None:
    """As in a configuration for a GPU: decoding and the model in one expression."""
    config = tmp_path / "one.toml"
    config.write_text(
        '[all]\nbackend = "S[DecodeMat,ResizeMat,cvtColorMat,Mat2Tensor,TensorrtTensor]"\n'
        'resize_h = 224\nresize_w = 224\nmodel = "efficientnet_lite0"\n'
        'mean = "127, 127, 127"\nstd = "128, 128, 128"\n'
    )
    for part in PARTS:
        result = _measure(capsys, photographs, "--part", part, "--config", str(config))
        assert float(str(result["images_per_s"])) > 0


def test_a_model_that_gets_tensors_has_nothing_that_decodes(
    capsys: pytest.CaptureFixture[str], photographs: Path, tmp_path: Path
) -> None:
    config = tmp_path / "model.toml"
    config.write_text('[net]\nbackend = "TensorrtTensor"\nmodel = "efficientnet_lite0"\n')
    words = ["--img_dir", str(photographs), "--config", str(config), "--part", "decode"]
    assert main(words) == 2
    assert "nothing stands before TensorrtTensor" in capsys.readouterr().err


def test_a_file_that_is_no_image_is_one_line(
    capsys: pytest.CaptureFixture[str], photographs: Path
) -> None:
    (photographs / "9.jpg").write_bytes(b"no image")
    words = ["--img_dir", str(photographs), "--model", "efficientnet_lite0", "--part", "engine"]
    assert main([*words, "--duration_s", "0.1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
