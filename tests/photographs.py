"""Photographs that are among the files of packages, whose import would take a second."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def photograph_file(name: str) -> Path:
    folders = (_package("skimage") / "data", _package("sklearn") / "datasets" / "images")
    return next(folder / name for folder in folders if (folder / name).is_file())


def _package(name: str) -> Path:
    spec = find_spec(name)
    assert spec
    assert spec.origin
    return Path(spec.origin).parent
