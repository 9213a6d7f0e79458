"""Inputs as a graph reads them, and contexts that pass them on through NumPy."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.contexts.row_copies import in_place, stage_rows
from engine.interface import Engine, ExecutionContext
from engine.tensor_spec import TensorSpec


def in_graph_order(tensor: Tensor, spec: TensorSpec) -> Tensor:
    """A view of an input, logically (N, C, H, W), with its dimensions as the graph names them."""
    return tensor.permute(0, 2, 3, 1) if spec.channels_last else tensor


class CpuContext(ExecutionContext):
    """Rows in CPU memory, read by another library than torch.

    A batch of one item is read where it lies; the items of a larger one are copied one behind the
    other into the input buffers.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        # Here torch only copies rows. By default it would share out even that to a team of
        # OpenMP threads, in every calling thread, on cores that the engine has work for.
        torch.set_num_threads(1)
        # Of the batch at work.
        self._placed: list[npt.NDArray[np.generic]] = []

    def _place(self, items: Sequence[Sequence[torch.Tensor]], rows: int) -> None:
        specs = self.engine.inputs
        if len(items) == 1:
            as_they_lie = [in_place(*pair) for pair in zip(items[0], specs, strict=True)]
            self._placed = [array for array in as_they_lie if array is not None]
            if len(self._placed) == len(specs):
                return
        stage_rows(items, self._inputs, specs)
        self._placed = [
            in_graph_order(buffer, spec).numpy()[:rows]
            for buffer, spec in zip(self._inputs, specs, strict=True)
        ]

    def _execute(self, rows: int) -> list[torch.Tensor]:  # noqa: ARG002 (placed as many)
        placed, self._placed = self._placed, []
        return [torch.from_numpy(output) for output in self._compute(placed)]

    @abstractmethod
    def _compute(self, inputs: list[npt.NDArray[np.generic]]) -> list[npt.NDArray[np.generic]]:
        """Run the network.

        Args:
            inputs: the batch's rows of every input, contiguous and as the graph names their
                dimensions. They may be a caller's, and must not be written.

        Returns:
            One array per model output, which the next run may overwrite.
        """
