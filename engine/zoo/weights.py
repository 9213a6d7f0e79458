"""Reading state-dict files into a network, with one clear line where they do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.cache.bounded_file import UnreadableFileError, check_file, why_no_file
from engine.errors import EngineError

_SHOWN_NAMES = 3
MAX_WEIGHTS_BYTES = 2**31 - 1
"""The model goes into one ONNX file, and nothing larger fits there."""


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that `torch.save(model.state_dict(), path)` wrote.

    Raises:
        EngineError: there is no such file, it is larger than 2 GiB, or it holds anything
            but named tensors.
    """
    try:
        check_file(path, MAX_WEIGHTS_BYTES)
    except UnreadableFileError as error:
        reason = why_no_file(path) or f"{path}: {error}"
        raise EngineError(f"no weights: {reason}") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader raises what any byte of another file leads to
        raise EngineError(
            f"{path} is not a state dict that torch.save wrote (only tensors are read)"
        ) from error
    if not isinstance(content, Mapping) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise EngineError(
            f"{path} holds no state dict; write one with torch.save(model.state_dict(), path)"
        )
    return dict(content)


def fill(network: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Copy weights into a network.

    Args:
        network: where they go.
        weights: by the names of the network's state dict.
        path: where they are from, for the error message.

    Raises:
        EngineError: names are missing or unexpected, or shapes differ.
    """
    wanted = network.state_dict()
    # Counters of training steps; older files lack them and nothing here reads them.
    optional = {name for name in wanted if name.endswith(".num_batches_tracked")}
    problems = [
        _names("missing", [n for n in wanted if n not in weights and n not in optional]),
        _names("unexpected", [n for n in weights if n not in wanted]),
        _names(
            "of another shape",
            [
                f"{n} ({_shape(weights[n])}, expected {_shape(wanted[n])})"
                for n in wanted
                if n in weights and weights[n].shape != wanted[n].shape
            ],
        ),
    ]
    if found := [problem for problem in problems if problem]:
        raise EngineError(f"{path} does not fit {type(network).__name__}: {'; '.join(found)}")
    network.load_state_dict(dict(weights), strict=False)


def _names(problem: str, names: list[str]) -> str:
    if not names:
        return ""
    more = ", ..." if len(names) > _SHOWN_NAMES else ""
    return f"{len(names)} {problem}: {', '.join(names[:_SHOWN_NAMES])}{more}"


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
