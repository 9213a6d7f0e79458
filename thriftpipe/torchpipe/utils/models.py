"""Models by name, and their way into an ONNX file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnxruntime
import torch

from engine.zoo.export import INPUT_NAME, OPSET, trace

_Factory = TypeVar("_Factory", bound=Callable[..., Any])

_FACTORIES: dict[str, Callable[..., Any]] = {}


def register_model(param: str | Callable[..., Any]) -> Any:
    """Keep what makes a model: `@register_model`, or `@register_model("name")`.

    Raises:
        TypeError: it is neither a name nor can it be called.
        KeyError: the name is taken.
    """
    if isinstance(param, str):
        return lambda function: _add(param, function)
    if callable(param):
        return _add(getattr(param, "__name__", str(param)), param)
    raise TypeError(f"register_model takes a name or a function, got {type(param).__name__}")


def register_model_from_timm(model_name: str) -> None:
    """Keep a model of the package timm under its name there.

    Raises:
        ModuleNotFoundError: timm is not installed.
        ValueError: it has no such model.
    """
    import timm

    if model_name not in timm.list_models():
        raise ValueError(f"timm has no model {model_name!r}")
    _add(model_name, lambda **keywords: timm.create_model(model_name, **keywords))


def create_model(model_name: str, **keywords: Any) -> Any:
    """Make a registered model; KeyError if there is none of that name."""
    if model_name not in _FACTORIES:
        raise KeyError(f"no model {model_name!r} is registered; there is: {list_models()}")
    return _FACTORIES[model_name](**keywords)


def list_models() -> list[str]:
    """The names of all registered models."""
    return list(_FACTORIES)


def onnx_export(
    model: torch.nn.Module,
    onnx_path: str | os.PathLike[str] | None = None,
    input: torch.Tensor | tuple[int, ...] | None = None,
    opset: int | None = None,
) -> str:
    """Export a model of one input with a dynamic batch.

    Args:
        model: the network.
        onnx_path: the file; None for one in the folder for temporary files, of the class's name.
        input: one input, or its shape; (1, 3, 224, 224) if it is None.
        opset: the operator set; None for the one that every engine reads.

    Returns:
        The file.
    """
    shape = (1, 3, 224, 224) if input is None else input
    example = shape.cpu() if isinstance(shape, torch.Tensor) else torch.zeros(shape)
    path = Path(onnx_path or Path(tempfile.gettempdir(), f"{type(model).__name__}.onnx"))
    with torch.no_grad():
        outputs = model.eval()(example)
    count = len(outputs) if isinstance(outputs, list | tuple) else 1
    names = [f"output_{number}" for number in range(count)]
    trace(model, [example], path, [INPUT_NAME], names, OPSET if opset is None else opset)
    return str(path)


def onnx_run(onnx_path: str | os.PathLike[str], input: Any) -> list[Any]:
    """The outputs of an ONNX file of one input, by onnxruntime on the CPU."""
    session = onnxruntime.InferenceSession(os.fspath(onnx_path), providers=["CPUExecutionProvider"])
    array = input.cpu().numpy() if isinstance(input, torch.Tensor) else np.asarray(input)
    outputs: list[Any] = session.run(None, {session.get_inputs()[0].name: array.astype(np.float32)})
    return outputs


def _add(name: str, factory: _Factory) -> _Factory:
    if name in _FACTORIES:
        raise KeyError(f"a model {name!r} is registered already")
    _FACTORIES[name] = factory
    return factory
