"""What torchpipe's users ask about models and about this build."""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch

from engine.onnx_graph.file import read_structure
from engine.onnx_graph.tensors import true_inputs
from engine.zoo.export import OPSET
from pipeline.backends.registry import backend_names
from thriftpipe.torchpipe.errors import ConfigError

WITH_CUDA = torch.cuda.is_available()
WITH_TENSORRT = WITH_CUDA and find_spec("tensorrt") is not None
WITH_OPENVINO = "OpenvinoMat" in backend_names() and find_spec("openvino") is not None


def infer_shape(model_path: str | os.PathLike[str]) -> list[list[int]]:
    """The shapes of an ONNX file's inputs, in their order; -1 for a size that it leaves open.

    Raises:
        ConfigError: it is no ONNX file.
    """
    proto = read_structure(os.fspath(model_path))
    if proto is None or not proto.HasField("graph"):
        raise ConfigError(
            f"{os.fspath(model_path)}: no ONNX file, so that its inputs are not known"
        )
    return [
        [
            dim.dim_value if dim.HasField("dim_value") else -1
            for dim in value.type.tensor_type.shape.dim
        ]
        for value in true_inputs(proto)
    ]


def supported_opset() -> int:
    """The operator set that every engine reads, for exporting a model."""
    return OPSET


def get_sm() -> str:
    """The compute capability of GPU 0, such as "9.0".

    Raises:
        RuntimeError: there is no GPU.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("no NVIDIA GPU here that torch can use")
    major, minor = torch.cuda.get_device_capability(0)
    return f"{major}.{minor}"


def list_backends() -> list[str]:
    """The names of all backends that expressions may have."""
    return sorted(backend_names())


def is_registered(backend: str) -> bool:
    """Whether an expression may have that backend."""
    return backend in backend_names()
