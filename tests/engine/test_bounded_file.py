"""Files of every kind are looked at before they are read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.bounded_file import UnreadableFileError, check_file, read_bounded
from engine.interface import EngineError
from engine.zoo.store import open_model
from engine.zoo.weights import read_state_dict
from pipeline.config import read_toml
from pipeline.errors import PipelineConfigError
from service.handler import ConfigurationError
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
        ("pipe", "not a regular file"),
        ("folder", "it is a folder"),
        ("none", "No such file"),
        ("/dev/zero", "not a regular file"),
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
