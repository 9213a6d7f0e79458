"""Files of every kind are looked at before they are read."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.cache.bounded_file import (
    UnreadableFileError,
    check_file,
    read_bounded,
    why_no_file,
    why_no_folder,
)
from engine.errors import EngineError
from engine.zoo.store import open_model
from engine.zoo.weights import read_state_dict
from pipeline.errors import PipelineConfigError
from pipeline.language.document import read_toml
from service.cli import main
from service.errors import ConfigurationError
from service.labels import read_labels


def test_a_file_of_the_largest_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    assert read_bounded(path, 100) == bytes(100)
    check_file(path, 100)


def test_a_larger_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(101))
    for read in (read_bounded, check_file):
        with pytest.raises(UnreadableFileError, match="it has 101 bytes, at most 100 are read"):
            read(path, 100)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pipe", "it is a named pipe, a file is needed"),
        ("folder", "it is a folder"),
        ("none", "No such file"),
        ("/dev/zero", "it is a device, a file is needed"),
    ],
)
def test_what_is_no_file_is_not_read(tmp_path: Path, name: str, reason: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for read in (read_bounded, check_file):
        with pytest.raises(UnreadableFileError, match=reason):
            read(tmp_path / name, 100)


def test_a_file_that_says_it_is_empty_and_is_not_is_bounded() -> None:
    """Those in /proc have the size 0."""
    with pytest.raises(UnreadableFileError, match="at most 10 are read"):
        read_bounded(Path("/proc/self/status"), 10)


def sparse(path: Path, size_bytes: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size_bytes)
    return path


def test_each_kind_of_input_has_a_limit(tmp_path: Path) -> None:
    for size_bytes, read, error in (
        (2**20 + 1, read_toml, PipelineConfigError),
        (10 * 2**20 + 1, read_labels, ConfigurationError),
        (2**31, read_state_dict, EngineError),
        (2**31, lambda path: open_model("resnet50", str(path)), EngineError),
    ):
        path = sparse(tmp_path / "large", size_bytes)
        with pytest.raises(error, match=f"it has {size_bytes} bytes, at most {size_bytes - 1}"):
            read(path)


@pytest.fixture
def odd_things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with everything that is no file."""
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "circle.onnx").symlink_to("circle.onnx")
    (tmp_path / "nowhere.onnx").symlink_to("gone.onnx")
    (tmp_path / "a\nb.onnx").write_bytes(b"x")
    (tmp_path / "model.onnx").write_bytes(b"x")
    # A short path, which is all that a socket takes.
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.onnx")
        yield Path()


# What stands there, and what is said of it.
ODD_THINGS = {
    "pipe.onnx": "pipe.onnx is a named pipe, a file is needed",
    "folder.onnx": "folder.onnx is a folder, a file is needed",
    "socket.onnx": "socket.onnx is a socket, a file is needed",
    "/dev/null": "/dev/null is a device, a file is needed",
    "circle.onnx": "circle.onnx cannot be read: Too many levels of symbolic links",
    "nowhere.onnx": "nowhere.onnx is a link to gone.onnx, which is not there",
    "modle.onnx": "there is no file modle.onnx; did you mean model.onnx?",
    "none/x.onnx": "there is no folder none",
    "model.onnx/x.onnx": "model.onnx is a file, a folder is needed",
    "a\nc.onnx": r"there is no file 'a\nc.onnx'; did you mean 'a\nb.onnx'?",
    "a\0b.onnx": r"'a\x00b.onnx' cannot be read: a path holds no NUL",
    "x" * 300: "cannot be read: File name too long",
}


@pytest.mark.parametrize(("name", "said"), ODD_THINGS.items(), ids=range(len(ODD_THINGS)))
def test_what_stands_there_is_said(odd_things: Path, name: str, said: str) -> None:
    assert said in why_no_file(odd_things / name)
    with pytest.raises(EngineError) as caught:
        open_model(f"./{name}" if not name.startswith("/") else name)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_there_has_no_fault(odd_things: Path) -> None:
    assert why_no_file(odd_things / "model.onnx") == ""
    assert why_no_folder(odd_things) == ""
    assert (
        why_no_folder(odd_things / "pipe.onnx") == "pipe.onnx is a named pipe, a folder is needed"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission_is_told(odd_things: Path) -> None:
    (odd_things / "model.onnx").chmod(0)
    assert why_no_file(odd_things / "model.onnx").endswith("cannot be read: Permission denied")


OPTIONS = {
    "--model": "pipeline",
    "--labels": "baseline",
    "--config": "pipeline",
    "--weights": "baseline",
    "--backends": "pipeline",
    "--tls-cert": "null",
}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_that_names_a_file_says_what_stands_there(
    odd_things: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("pipe.onnx", "socket.onnx", "circle.onnx", "a\nc.onnx"):
        path = str(odd_things / name)
        assert main(["--handler", OPTIONS[option], "--port", "0", option, path]) == 2
        assert capsys.readouterr().err == f"error: {option}: {ODD_THINGS[name]}\n"
