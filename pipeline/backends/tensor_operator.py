"""What the operators on tensors have in common: CPU or GPU, one tensor or a list of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.backends.cpu_operator import CpuOperator
from pipeline.backends.gpu_image import as_gpu_tensor
from pipeline.backends.interface import Item
from pipeline.errors import PipelineConfigError
from pipeline.keys import TASK_DATA_KEY, TASK_RESULT_KEY


class TensorOperator(CpuOperator):
    """An operator on tensors, which runs where they lie: on the CPU, or on a GPU."""

    # A tensor may lie on a GPU, whose work stays in the instance's own thread.
    any_thread = False

    def forward(self, items: Sequence[Item]) -> None:
        """Process the items, and wait for those that have no stream of their node's."""
        super().forward(items)
        # A node without GPU operators hands on its results without waiting for a stream.
        for device in {device for item in items for device in _devices(item.get(TASK_RESULT_KEY))}:
            stream = torch.cuda.current_stream(device)
            if stream == torch.cuda.default_stream(device):
                stream.synchronize()

    @classmethod
    def _tensor(cls, data: Any) -> torch.Tensor:
        return as_tensor(data, cls.__name__)


class EachTensor(TensorOperator):
    """An operator on one tensor; of a list of tensors it does each, and gives a list."""

    def process(self, item: Item) -> Any:
        """The result of one tensor, or a list of results."""
        data = item[TASK_DATA_KEY]
        if isinstance(data, list | tuple):
            return [self.apply(self._tensor(one)) for one in data]
        return self.apply(self._tensor(data))

    @abstractmethod
    def apply(self, tensor: torch.Tensor) -> Any:
        """The result for one tensor."""


def _devices(result: Any) -> set[torch.device]:
    """The GPUs on which a result's tensors lie."""
    tensors = result if isinstance(result, list | tuple) else [result]
    return {one.device for one in tensors if isinstance(one, torch.Tensor) and one.is_cuda}


def as_tensor(data: Any, operator: str) -> torch.Tensor:
    """An item's data as a tensor.

    Args:
        data: a tensor, a NumPy array, such as a matrix, or an image on the GPU.
        operator: whose data it is, for the message.

    Raises:
        TypeError: it is something else.
    """
    data = as_gpu_tensor(data)
    if isinstance(data, np.ndarray):
        # Negative strides, as a flipped image has them, are none of torch's.
        data = torch.from_numpy(np.ascontiguousarray(data))
    if not isinstance(data, torch.Tensor):
        raise TypeError(
            f"{operator} takes a tensor or a list of tensors, got {type(data).__name__}"
        )
    return data


def as_nchw(tensor: torch.Tensor, operator: str) -> torch.Tensor:
    """A view of an image tensor with the shape (rows, channels, height, width).

    Args:
        tensor: of the shape (height, width, channels), (rows, height, width, channels) or the
            wanted one, which counts where both fit; with 1, 3 or 4 channels.
        operator: whose tensor it is, for the message.

    Raises:
        ValueError: it has another shape.
    """
    shape, channels = tuple(tensor.shape), (1, 3, 4)
    if len(shape) == 4 and shape[1] in channels:
        return tensor
    if len(shape) == 4 and shape[3] in channels:
        return tensor.permute(0, 3, 1, 2)
    if len(shape) == 3 and shape[2] in channels:
        return tensor.permute(2, 0, 1).unsqueeze(0)
    raise ValueError(
        f"{operator} takes an image of the shape (1, channels, height, width) or (height, width, "
        f"channels) with 1, 3 or 4 channels, got {shape}"
    )


def load_tensors(path: str, operator: str) -> torch.Tensor | list[torch.Tensor]:
    """What a file made by torch.save has: a tensor, or a list of them. No code of it is run.

    Args:
        path: the file.
        operator: what needs it, for the message.

    Raises:
        PipelineConfigError: it cannot be read, or has something else.
    """
    try:
        loaded = torch.load(Path(path), map_location="cpu", weights_only=True)
    except Exception as error:
        raise PipelineConfigError(
            f"{operator}: {path!r} cannot be read as a tensor ({type(error).__name__}: {error}); "
            "torch.save(tensor, path) makes such a file"
        ) from error
    tensors = list(loaded) if isinstance(loaded, list | tuple) else [loaded]
    if not tensors or not all(isinstance(one, torch.Tensor) for one in tensors):
        raise PipelineConfigError(
            f"{operator}: {path!r} has a {type(loaded).__name__}: expected a tensor, or a list or "
            "tuple of tensors"
        )
    return tensors if isinstance(loaded, list | tuple) else tensors[0]
