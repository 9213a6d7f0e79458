"""Backends that save what passes, and load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from pipeline import PipelineConfigError, pipe


def test_tensors_are_saved_one_by_one_and_handed_on(tmp_path: Path) -> None:
    items = [{"data": torch.full((2, 3), number).T} for number in range(6)]
    settings = {"backend": "SaveTensor", "save_dir": str(tmp_path), "instance_num": 2}
    with pipe({"node": settings}) as run:
        run(items)
    assert all(item["result"] is item["data"] for item in items)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 6
    assert all(path.name.startswith("node_") and path.suffix == ".pt" for path in files)
    saved = [torch.load(path) for path in files]
    assert all(tensor.shape == (3, 2) for tensor in saved)
    assert sorted(int(tensor[0, 0]) for tensor in saved) == list(range(6))


def test_of_a_view_no_more_is_saved_than_is_seen(tmp_path: Path) -> None:
    with pipe({"node": {"backend": "SaveTensor", "save_dir": str(tmp_path)}}) as run:
        run({"data": torch.zeros(1_000_000)[:1]})
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size < 10_000


def test_matrices_are_saved_with_their_colours(tmp_path: Path) -> None:
    image = np.zeros((2, 4, 3), np.uint8)
    image[..., 0] = 200
    for color, matrices in (("bgr", image), ("rgb", [image[:, :, ::-1]])):
        folder = tmp_path / color
        folder.mkdir()
        item = {"data": matrices, "color": color}
        with pipe({"node": {"backend": "SaveMat", "save_dir": str(folder)}}) as run:
            run(item)
        assert item["result"] is matrices
        (path,) = folder.iterdir()
        assert np.array_equal(cv2.imread(str(path)), image)


def test_what_is_no_matrix_is_not_saved(tmp_path: Path) -> None:
    item: dict[str, Any] = {"data": np.zeros((2, 2, 3), np.float32)}
    with pipe({"node": {"backend": "SaveMat", "save_dir": str(tmp_path)}}) as run:
        run(item)
    assert "expected a matrix of uint8" in str(item["error"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("backend", ["SaveTensor", "SaveMat"])
def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, backend: str) -> None:
    with pytest.raises(PipelineConfigError, match=f"{backend}: save_dir = .*there is no folder"):
        pipe({"node": {"backend": backend, "save_dir": str(tmp_path / "none")}})
    with pytest.raises(PipelineConfigError, match=f"{backend} needs save_dir"):
        pipe({"node": {"backend": backend}})


def test_load_tensor_gives_what_was_saved(tmp_path: Path) -> None:
    tensor, path = torch.rand(3), tmp_path / "one.pt"
    torch.save(tensor, path)
    items = [{"data": None}, {"data": "anything"}]
    with pipe({"node": {"backend": "LoadTensor", "tensor_name": str(path)}}) as run:
        run(items)
    assert all(torch.equal(item["result"], tensor) for item in items)
    torch.save((tensor, tensor), path)
    with pipe({"node": {"backend": "LoadTensors", "tensor_name": str(path)}}) as run:
        run(items[0])
    assert len(items[0]["result"]) == 2


@pytest.mark.parametrize("content", [b"no tensor", None])
def test_load_tensor_refuses_other_files(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "file.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PipelineConfigError, match="cannot be read as a tensor"):
        pipe({"node": {"backend": "LoadTensor", "tensor_name": str(path)}})


def test_load_tensor_refuses_a_dictionary_and_runs_no_code(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    torch.save({"weight": torch.zeros(1)}, path)
    with pytest.raises(PipelineConfigError, match="has a dict: expected a tensor"):
        pipe({"node": {"backend": "LoadTensor", "tensor_name": str(path)}})
    torch.save(Path("x"), path)
    with pytest.raises(PipelineConfigError, match="cannot be read as a tensor"):
        pipe({"node": {"backend": "LoadTensor", "tensor_name": str(path)}})


def test_read_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    items = [{"data": str(tmp_path / "a")}, {"data": str(tmp_path / "b")}, {"data": b"abc"}]
    with pipe({"node": {"backend": "ReadFile"}}) as run:
        run(items)
    assert items[0]["result"] == b"abc"
    assert "No such file" in str(items[1]["error"])
    assert "ReadFile takes the path of a file as text, got bytes" in str(items[2]["error"])
