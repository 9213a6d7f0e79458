from __future__ import annotations

import logging
import os
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.errors import EngineError
from engine.int8.calibration import CalibrationFeeds, CalibrationImages
from engine.normalization import Normalization
from engine.onnx_graph.model import OnnxModel
from engine.resizing import Resizing
from tests.image_models import png_of_size, save_means


@pytest.fixture
def folder(tmp_path: Path, photographs: list[bytes]) -> Path:
    for index, data in enumerate(photographs):
        (tmp_path / f"{index}.jpg").write_bytes(data)
    return tmp_path


def test_few_photographs_become_enough_views(folder: Path) -> None:
    views = list(CalibrationImages(folder).views(Resizing(32, 48)))
    assert len(views) >= 50
    assert {(view.shape, view.dtype.name) for view in views} == {((1, 32, 48, 3), "uint8")}
    assert len({view.tobytes() for view in views}) == len(views)


def test_the_first_view_of_a_photograph_is_what_a_request_with_it_gets(
    folder: Path, photographs: list[bytes]
) -> None:
    image = cv2.imdecode(np.frombuffer(photographs[0], np.uint8), cv2.IMREAD_COLOR)
    expected = cv2.cvtColor(cv2.resize(image, (48, 32)), cv2.COLOR_BGR2RGB)
    first = next(CalibrationImages(folder).views(Resizing(32, 48)))
    np.testing.assert_array_equal(first[0], expected)


def test_of_many_photographs_each_gives_one_view(folder: Path, photographs: list[bytes]) -> None:
    for index in range(70):
        (folder / f"more{index}.jpg").write_bytes(photographs[index % len(photographs)])
    images = CalibrationImages(folder)
    assert len(list(images.views(Resizing(8, 8)))) == len(images.paths) == 70 + len(photographs)


def test_the_identity_is_that_of_the_content(folder: Path, photographs: list[bytes]) -> None:
    before = CalibrationImages(folder).sha256
    assert CalibrationImages(folder).sha256 == before
    (folder / "0.jpg").write_bytes(photographs[1])
    assert CalibrationImages(folder).sha256 != before


def test_images_that_cannot_be_used_are_told_at_once(
    folder: Path, photographs: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "broken.jpg").write_bytes(photographs[0][:300])
    (folder / "empty.png").touch()
    os.mkfifo(folder / "pipe.jpg")
    (folder / "wide.png").write_bytes(png_of_size(40_000, 40_000))
    (folder / "notes.txt").write_text("not looked at")
    with pytest.raises(
        EngineError, match=r"4 of 10 images cannot be used; .*--skip-bad-images"
    ) as it:
        CalibrationImages(folder)
    for told in (
        "broken.jpg: it cannot be decoded",
        "empty.png: it is empty",
        "pipe.jpg: it is no",
        "wide.png: OpenCV refuses it: ",
    ):
        assert told in str(it.value)
    with caplog.at_level(logging.INFO):
        images = CalibrationImages(folder, skip_bad=True)
    assert len(images.paths) == len(photographs)
    others, skipped = caplog.messages
    assert others == f"calibration_images: left out, as no images: {folder / 'notes.txt'}"
    assert skipped.startswith("calibration_images: skipping 4 of 10 images: ")


def test_views_are_what_requests_become(folder: Path) -> None:
    whole = next(CalibrationImages(folder).views(Resizing(32, 32)))
    middle = next(CalibrationImages(folder).views(Resizing(32, 32, 40)))
    assert whole.shape == middle.shape == (1, 32, 32, 3)
    assert not np.array_equal(whole, middle)


def test_feeds_lie_as_the_graph_wants_them(folder: Path, tmp_path: Path) -> None:
    """Also floats whose channels come last, as the baseline gives them."""
    images, plain = CalibrationImages(folder), Normalization((0.0,), (1.0,))
    model = OnnxModel.load(save_means(tmp_path / "m.onnx", "nhwc")).with_image_input()
    (feed,) = islice(iter(CalibrationFeeds(model, images, plain)), 1)
    assert feed["image"].shape == (1, 8, 8, 3)
    (row,) = islice(iter(images.views(Resizing(8, 8))), 1)
    assert np.array_equal(feed["image"], row.astype(np.float32))


def test_images_are_known_by_their_content(tmp_path: Path, photographs: list[bytes]) -> None:
    pixels = cv2.imdecode(np.frombuffer(photographs[0], np.uint8), cv2.IMREAD_COLOR)
    (tmp_path / "photograph").write_bytes(photographs[0])
    (tmp_path / "photograph.upload").write_bytes(photographs[1])
    assert cv2.imwrite(str(tmp_path / "photograph.ppm"), pixels)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes").write_text("not looked at")
    assert [path.name for path in CalibrationImages(tmp_path).paths] == [
        "photograph",
        "photograph.ppm",
        "photograph.upload",
    ]


def test_without_a_folder_the_error_names_the_flag_and_the_setting() -> None:
    told = r"name a folder of images .* --calibration-images, or as calibration_images in the TOML"
    with pytest.raises(EngineError, match=told):
        CalibrationImages(None)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"calibration_images: there is no folder .*none"):
        CalibrationImages(tmp_path / "none")


def test_two_images_are_too_few(tmp_path: Path, photographs: list[bytes]) -> None:
    for index, data in enumerate(photographs[:2]):
        (tmp_path / f"{index}.jpg").write_bytes(data)
    with pytest.raises(EngineError, match=r"has 2 images that can be used; .* at least 3"):
        CalibrationImages(tmp_path)
