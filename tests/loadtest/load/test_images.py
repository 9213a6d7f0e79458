"""The photo set, and folders of images."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import pytest

from loadtest.errors import LoadTestError
from loadtest.load.images import read_folder, write_photo_set


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


@pytest.mark.parametrize("data", [b"", b"no image", b"\xff\xd8\xff\xe0 cut off"])
def test_a_file_that_is_no_image_is_named(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(data)
    with pytest.raises(LoadTestError, match=r"'broken\.jpg'.*cannot be decoded"):
        read_folder(tmp_path)
