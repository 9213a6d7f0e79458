"""Folders of mixed files: nothing is left out without a word."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from interfaces.image_folder import find_images, why_no_format

JPEG, GIF = b"\xff\xd8\xff\xe0 and so on", b"GIF89a and so on"


def names(paths: object) -> list[str]:
    return [Path(path).name for path in paths]  # type: ignore[attr-defined]


def why_bad(path: Path) -> str:
    return why_no_format(path.read_bytes())


def test_every_file_is_an_image_a_bad_one_or_told(tmp_path: Path) -> None:
    for name, content in {
        "a.jpg": JPEG,
        "b": JPEG,
        "c.jpg": b"",
        "d.jpg": b"text",
        "e.gif": GIF,
        "f.txt": b"text",
        "g\n.jpg": b"text",
        "g2": b"\0\0\0\x18ftypheic and so on",
    }.items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "h.jpg")
    os.mkfifo(tmp_path / "i")
    (tmp_path / "j.jpg").symlink_to("nowhere")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "k.jpg").write_bytes(JPEG)
    missing = tmp_path / "none.jpg"
    found = find_images([tmp_path, missing, tmp_path / "more" / "k.jpg"], why_bad, threads=3)
    assert names(found.usable) == ["a.jpg", "b", "k.jpg"]
    assert names(found.bad) == [
        "c.jpg",
        "d.jpg",
        "e.gif",
        "g\n.jpg",
        "g2",
        "h.jpg",
        "j.jpg",
        "none.jpg",
    ]
    assert names(found.others) == ["f.txt", "i", "more"]
    reasons = dict(zip(names(found.bad), found.problems(), strict=True))
    assert reasons["c.jpg"] == f"{tmp_path / 'c.jpg'}: it is empty"
    assert "no image of a known format: jpeg, png" in reasons["d.jpg"]
    assert "it is heic, which nothing here decodes" in reasons["g2"]
    assert "it is gif; the service decodes jpeg, png, webp, bmp by default" in reasons["e.gif"]
    assert "\\n" in reasons["g\n.jpg"]
    assert "no regular file" in reasons["h.jpg"]
    assert "No such file" in reasons["none.jpg"]
    assert all("\n" not in line for line in reasons.values())
    told: list[str] = []
    found.settle(ValueError, skip_bad=True, tell=told.append)
    assert told == [found.left_out(), *found.problems(), "skipping 8 of 11 images"]
    assert told[0].startswith("left out, as no images: ")
    with pytest.raises(ValueError, match=r"8 of 11 images cannot be used; .*--skip-bad") as raised:
        found.settle(
            ValueError, skip_bad=False, tell=told.append, option="skip-bad", in_one_line=True
        )
    assert str(raised.value).endswith("; ".join(found.problems()))


def test_folders_in_folders(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "k.jpg").write_bytes(JPEG)
    found = find_images([tmp_path], why_bad, recursive=True)
    assert (names(found.usable), list(found.others)) == (["k.jpg"], [])
    told: list[str] = []
    found.settle(ValueError, skip_bad=False, tell=told.append)
    assert told == []


def test_many_others_are_counted(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"{number}.txt").touch()
    assert find_images([tmp_path], why_bad).left_out().endswith("2.txt and 3 more")
