from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from engine.onnx_graph.model import OnnxModel
from engine.zoo import open_model
from tests.photographs import photograph_file

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "one byte less": lambda content: content[:-1],
    "one byte more": lambda content: content + b"\0",
    "one bit": lambda content: content[:100] + bytes([content[100] ^ 4]) + content[101:],
    "garbage": lambda content: os.urandom(len(content)),
}
LABELS = Path(__file__).parents[2] / "service" / "imagenet_labels.txt"


@pytest.fixture(scope="session")
def resnet50() -> OnnxModel:
    return open_model("resnet50")


@pytest.fixture(scope="session")
def efficientnet_lite0() -> OnnxModel:
    return open_model("efficientnet_lite0")


@pytest.fixture(scope="session")
def labels() -> list[str]:
    return LABELS.read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="session")
def photos() -> dict[str, torch.Tensor]:
    """Real photographs: uint8 RGB of shape (1, 3, 224, 224)."""
    names = ["chelsea.png", "coffee.png", "camera.png", "motorcycle_left.png"]
    names += ["china.jpg", "flower.jpg"]
    return {Path(name).stem: _as_tensor(_read_rgb(name)) for name in names}


def _read_rgb(name: str) -> np.ndarray:
    image = cv2.imread(str(photograph_file(name)))
    assert image is not None
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _as_tensor(image: np.ndarray) -> torch.Tensor:
    resized = cv2.resize(image, (224, 224), interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(resized).permute(2, 0, 1)[None]


@pytest.fixture(scope="session")
def photo_batch(photos: dict[str, torch.Tensor]) -> torch.Tensor:
    """All photographs: uint8 RGB of shape (6, 3, 224, 224)."""
    return torch.cat(list(photos.values()))


def _small_proto(
    batch: int | str = "batch",
    size: int | str = 8,
    *,
    reshape_to: list[int] | None = None,
    last: str = "Softmax",
    opset: int = 17,
) -> onnx.ModelProto:
    """A classifier of 5 classes: convolution, pooling, a matrix product, and `last`."""
    random = np.random.default_rng(seed=1)
    weights: dict[str, np.ndarray] = {
        "kernel": random.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "matrix": random.normal(size=(4, 5)).astype(np.float32),
        "shape": np.array(reshape_to or [0, 4], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["maps"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
        helper.make_node("Reshape", ["pooled", "shape"], ["features"]),
        helper.make_node("MatMul", ["features", "matrix"], ["logits"]),
        helper.make_node(last, ["logits"], ["scores"], "last"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 5])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.fixture
def small_proto() -> Callable[..., onnx.ModelProto]:
    """Makes small classifiers; see `_small_proto` for what can be varied."""
    return _small_proto


@pytest.fixture
def small_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    onnx.save(_small_proto(), path)
    return path


@pytest.fixture
def small_model(small_file: Path) -> OnnxModel:
    return OnnxModel.load(small_file)


@pytest.fixture(params=DAMAGES)
def damage(request: pytest.FixtureRequest) -> Callable[[bytes], bytes]:
    return DAMAGES[str(request.param)]
