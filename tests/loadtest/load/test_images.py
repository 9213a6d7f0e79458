"""The photo set, and folders of images."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from interfaces.image_formats import DEFAULT_FORMATS
from interfaces.service import MAX_FRAME_BYTES
from loadtest.command_line import build_parser
from loadtest.errors import LoadTestError, UsageError
from loadtest.load.images import read_folder, write_photo_set
from loadtest.measure.settings import chosen_images
from tests.image_models import png_of_size


def test_the_photo_set_is_the_same_every_time(photo_folder: Path, tmp_path: Path) -> None:
    again = write_photo_set(tmp_path)
    assert [image.as_record() for image in again] == [
        image.as_record() for image in read_folder(photo_folder)
    ]


def test_photographs_have_several_sizes_and_the_published_mean_size(photo_folder: Path) -> None:
    photographs = read_folder(photo_folder)
    assert len(photographs) >= 20
    assert {500, 640, 1280} <= {max(p.width, p.height) for p in photographs}
    assert any(p.height > p.width for p in photographs)
    mean_bytes = sum(p.size_bytes for p in photographs) / len(photographs)
    assert 70_000 <= mean_bytes <= 100_000


def test_the_manifest_says_what_the_files_are(photo_folder: Path) -> None:
    manifest = json.loads((photo_folder / "manifest.json").read_text())
    assert {entry["name"] for entry in manifest} == {p.name for p in photo_folder.glob("*.jpg")}
    for entry in manifest:
        data = (photo_folder / entry["name"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
        assert entry["size_bytes"] == len(data)
        picture = cv2.imread(str(photo_folder / entry["name"]))
        assert picture is not None
        assert (entry["height"], entry["width"]) == picture.shape[:2]


def test_a_missing_folder_is_named_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(LoadTestError, match=r"'nowhere' does not exist.*loadtest images"):
        read_folder(Path("nowhere"))
    with pytest.raises(LoadTestError, match="holds no image"):
        read_folder(tmp_path)


def test_decoding_tells_how_far_it_is(
    few_photographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("loadtest.progress._LINE_INTERVAL_S", 0.0)
    options = build_parser().parse(["run", "--img_dir", str(few_photographs)])
    assert len(chosen_images(options)) == 4
    assert [line for line in capsys.readouterr().err.splitlines() if "decoding" in line] == [
        f"decoding images: {done} of 4" for done in range(1, 5)
    ]


def test_all_images_that_cannot_be_used_are_told_at_once(
    photo_folder: Path, tmp_path: Path
) -> None:
    good = sorted(photo_folder.glob("*.jpg"))[:2]
    for path in good:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_bytes(b"no image")
    (tmp_path / "cut.upload").write_bytes(good[0].read_bytes()[:3000])
    assert cv2.imwrite(str(tmp_path / "other.tiff"), np.zeros((5, 5, 3), np.uint8))
    (tmp_path / "labels.txt").write_text("cat")
    (tmp_path / "more").mkdir()
    told: list[str] = []
    with pytest.raises(UsageError, match=r"4 of 6 images cannot be used; .* --skip_bad_images"):
        read_folder(tmp_path, formats=DEFAULT_FORMATS, tell=told.append)
    assert [line.removeprefix(f"{tmp_path}/").split(":")[0] for line in told] == [
        "left out, as no images",
        *("cut.upload", "empty.jpg", "other.tiff", "text.jpg"),
    ]
    for words in ("truncated or damaged", "is empty", "it is tiff; the service decodes jpeg"):
        assert any(words in line for line in told), words
    told.clear()
    found = read_folder(tmp_path, skip_bad=True, tell=told.append)
    # A server that runs already may decode more.
    assert {image.name for image in found} == {*(path.name for path in good), "other.tiff"}
    assert told[-1] == "skipping 3 of 6 images"


def test_what_opencv_or_a_message_cannot_hold_is_told_like_the_others(
    photo_folder: Path, tmp_path: Path
) -> None:
    data = min(photo_folder.glob("*.jpg")).read_bytes()
    (tmp_path / "good.jpg").write_bytes(data)
    (tmp_path / "wide.png").write_bytes(png_of_size(40_000, 40_000))
    with (tmp_path / "long.jpg").open("wb") as file:
        file.write(data)
        # More than there is memory, and no block of it is on the disk.
        file.truncate(2**40)
    told: list[str] = []
    (found,) = read_folder(tmp_path, skip_bad=True, tell=told.append)
    assert found.name == "good.jpg"
    long, wide, _ = told
    assert f"long.jpg: it has {2**40} bytes, and a message {MAX_FRAME_BYTES} at most" in long
    assert "wide.png: OpenCV refuses it: " in wide


def test_a_name_of_any_bytes_can_be_sent(photo_folder: Path, tmp_path: Path) -> None:
    data = min(photo_folder.glob("*.jpg")).read_bytes()
    Path(os.fsdecode(bytes(tmp_path) + b"/\xff.jpg")).write_bytes(data)
    (image,) = read_folder(tmp_path)
    assert image.name == r"'\udcff.jpg'"
    assert image.name.encode("utf-8")
    assert image.path.read_bytes() == data
