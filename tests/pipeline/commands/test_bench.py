"""`python -m pipeline bench`: a real pipe under load in this process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.commands.dispatch import main


@pytest.fixture
def photos(folder: Path, tmp_path: Path) -> Path:
    """A folder with an image in it and one in a folder of it."""
    place = tmp_path / "photos"
    (place / "more").mkdir(parents=True)
    shutil.copy(folder / "red.png", place)
    shutil.copy(folder / "blue.png", place / "more" / "BLUE.PNG")
    return place


def test_bench_tells_what_callers_and_nodes_saw(
    folder: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", str(folder / "channels.toml"), str(photos), "--clients", "4"]
    assert main([*words, "--images", "41", "--request-batch", "2", "--json"]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (report["images"], report["requests"], report["failures"]) == (41, 21, {})
    assert report["qps"] == pytest.approx(41 / report["wall_s"])
    assert report["tp50_ms"] <= report["tp90_ms"] <= report["tp99_ms"]
    low, _ = report["tp50_interval_ms"]
    assert low <= report["tp50_ms"]
    for node in ("decoder", "model"):
        counts = report["nodes"][node]
        by_rows = {int(rows): count for rows, count in counts["batches_by_rows"].items()}
        assert (counts["images"], counts["failed_images"]) == (41, 0)
        assert sum(rows * count for rows, count in by_rows.items()) == 41
        assert sum(counts["batches_by_reason"].values()) == sum(by_rows.values())
        assert counts["worked_ms"] > 0
    assert set(report["nodes"]["model"]["batches_by_rows"]) <= {"1", "2"}


def test_bench_in_words(
    folder: Path, photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    file, red = str(folder / "channels.toml"), str(photos / "red.png")
    assert main(["bench", file, red, "--duration-s", "0.05", "--clients", "2"]) == 0
    shown, progress = capsys.readouterr()
    lines = shown.splitlines()
    for start in ("QPS ", "TP50 ", "TP90 ", "TP99 ", "mean ", "node ", "decoder ", "model "):
        assert any(line.startswith(start) for line in lines), start
    assert "full  idle  timeout" in shown
    assert "decoder  1: 100 %" in lines
    assert "2 clients, 0.05 s of 1 files ..." in progress


def test_an_image_that_fails_is_counted_and_told(
    folder: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(photos / "small.png"), np.zeros((5, 5, 3), np.uint8))
    part = "CropMat(x1=0,y1=0,x2=25,y2=15)"
    decoder = f"decoder.backend=S[DecodeMat,{part},ResizeMat(resize_h=8),cvtColorMat,Mat2Tensor]"
    file = str(folder / "channels.toml")
    words = ["bench", file, str(photos), "--images", "60", "--set", decoder]
    assert main([*words, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    (message,) = report["failures"]
    assert "decoder" in message
    failed = report["failures"][message]
    assert report["images"] + failed == 60
    assert report["nodes"]["decoder"]["failed_images"] == failed
    assert report["nodes"]["model"]["images"] == report["images"]
    small = str(photos / "small.png")
    assert main(["bench", file, small, "--images", "60", "--set", decoder]) == 1
    assert "60 of 60 images failed:\n  60 x " in capsys.readouterr().out


def test_images_that_cannot_be_used_are_told_before_anything_is_loaded(
    folder: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(folder / "text.png", photos)
    (photos / "notes.txt").write_text("no image")
    words = ["bench", str(folder / "channels.toml"), str(photos), "--images", "4"]
    assert main(words) == 2
    others, bad, last = capsys.readouterr().err.splitlines()
    assert others == f"left out, as no images: {photos / 'notes.txt'}"
    assert bad.startswith(f"{photos / 'text.png'}: 8 bytes that do not decode as an image")
    assert last.startswith("error: 1 of ")
    assert main([*words, "--skip-bad-images"]) == 0
    assert "skipping 1 of 3 images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{file}", "/no/photos"], "there is no folder /no"),
        (["{file}", "{folder}/nothing"], "no images in"),
        (["{file}", "{folder}/red.png", "--node", "modle"], "did you mean 'model'?"),
        (["{file}", "{folder}/red.png", "--engine", "onxruntime"], "did you mean 'onnxruntime'?"),
        (["{folder}/no.toml", "{folder}/red.png"], "cannot read the configuration"),
    ],
)
def test_what_cannot_begin_is_one_line(
    words: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "nothing").mkdir(exist_ok=True)
    given = [word.format(file=folder / "channels.toml", folder=folder) for word in words]
    assert main(["bench", *given]) == 2
    told = capsys.readouterr().err.splitlines()
    assert any(message in line for line in told[-2:])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--duration-s", "0"], "must be above 0"),
        (["--duration-s", "nan"], "must be above 0"),
        (["--clients", "0"], "must be at least 1"),
        (["--images", "3", "--duration-s", "1"], "not allowed with"),
    ],
)
def test_a_length_that_is_none_is_a_wrong_command_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["bench", "a.toml", "photos", *words])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
