"""Contexts of engines that read their inputs from host memory through NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engine.interface import ExecutionContext


class HostContext(ExecutionContext):
    """Input buffers in host memory, in the order in which the graph reads them."""

    def _arrays(self, rows: int) -> list[npt.NDArray[np.generic]]:
        """The first `rows` rows of every input buffer, without a copy and contiguous."""
        return [
            (buffer.permute(0, 2, 3, 1) if spec.channels_last else buffer)[:rows].numpy()
            for buffer, spec in zip(self._inputs, self.engine.inputs, strict=True)
        ]
