"""Input buffers as a graph reads them, and contexts that pass them on through NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.interface import Engine, ExecutionContext
from engine.tensor_spec import TensorSpec


def in_graph_order(tensor: Tensor, spec: TensorSpec) -> Tensor:
    """A view of an input, logically (N, C, H, W), with its dimensions as the graph names them."""
    return tensor.permute(0, 2, 3, 1) if spec.channels_last else tensor


class CpuContext(ExecutionContext):
    """Input buffers in CPU memory, filled by torch and read by another library."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        # Here torch only copies rows. By default it would share out even that to a team of
        # OpenMP threads, in every calling thread, on cores that the engine has work for.
        torch.set_num_threads(1)

    def _arrays(self, rows: int) -> list[npt.NDArray[np.generic]]:
        """The first `rows` rows of every input buffer, contiguous and without a copy."""
        return [
            in_graph_order(buffer, spec)[:rows].numpy()
            for buffer, spec in zip(self._inputs, self.engine.inputs, strict=True)
        ]
