from __future__ import annotations

import logging
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.errors import EngineError
from engine.int8.calibration import CalibrationImages


@pytest.fixture
def folder(tmp_path: Path, photographs: list[bytes]) -> Path:
    for index, data in enumerate(photographs):
        (tmp_path / f"{index}.jpg").write_bytes(data)
    return tmp_path


def test_few_photographs_become_enough_views(folder: Path) -> None:
    views = list(CalibrationImages(folder).views(32, 48))
    assert len(views) >= 50
    assert {(view.shape, view.dtype.name) for view in views} == {((1, 32, 48, 3), "uint8")}
    assert len({view.tobytes() for view in views}) == len(views)


def test_the_first_view_of_a_photograph_is_what_a_request_with_it_gets(
    folder: Path, photographs: list[bytes]
) -> None:
    image = cv2.imdecode(np.frombuffer(photographs[0], np.uint8), cv2.IMREAD_COLOR)
    expected = cv2.cvtColor(cv2.resize(image, (48, 32)), cv2.COLOR_BGR2RGB)
    first = next(CalibrationImages(folder).views(32, 48))
    np.testing.assert_array_equal(first[0], expected)


def test_of_many_photographs_each_gives_one_view(folder: Path, photographs: list[bytes]) -> None:
    for index in range(70):
        (folder / f"more{index}.jpg").write_bytes(photographs[index % len(photographs)])
    images = CalibrationImages(folder)
    assert len(list(images.views(8, 8))) == len(images.paths) == 70 + len(photographs)


def test_the_identity_is_that_of_the_content(folder: Path, photographs: list[bytes]) -> None:
    before = CalibrationImages(folder).sha256
    assert CalibrationImages(folder).sha256 == before
    (folder / "0.jpg").write_bytes(photographs[1])
    assert CalibrationImages(folder).sha256 != before


def test_what_is_no_image_is_left_out_and_named(
    folder: Path, photographs: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "broken.jpg").write_bytes(photographs[0][:300])
    (folder / "empty.png").touch()
    os.mkfifo(folder / "pipe.jpg")
    (folder / "notes.txt").write_text("not looked at")
    with caplog.at_level(logging.WARNING):
        images = CalibrationImages(folder)
    assert len(images.paths) == len(photographs)
    assert "broken.jpg is not an image" in caplog.text
    assert "pipe.jpg is left out: it is a named pipe" in caplog.text
    assert "empty.png is not an image" in caplog.text
    assert "notes.txt" not in caplog.text


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
    with pytest.raises(EngineError, match=r"has 2 images that OpenCV can decode; .* at least 3"):
        CalibrationImages(tmp_path)
