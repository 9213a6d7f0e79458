"""Whether an exported model gives what its torch network gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from engine.errors import EngineError
from engine.onnx_graph.optimization import cpu_session
from engine.onnx_graph.trial_run import made_up_rows
from engine.zoo.flat_network import Flat
from interfaces.error_text import first_line

# Of the largest value of a row: other kernels add in another order.
_TOLERANCE = 1e-3
BATCHES = (1, 3)
"""Rows of the batches that are compared."""


def relative_difference(network: Flat, content: bytes) -> float:
    """Compare outputs for made-up rows, in batches of 1 and of 3.

    Args:
        network: the torch network.
        content: the serialized ONNX model.

    Returns:
        The largest difference of two values, relative to the largest value of their row.

    Raises:
        EngineError: they differ by more than 0.001, or in their shapes; or one of them cannot run.
    """
    rows = made_up_rows(onnx.load_model_from_string(content))
    session = cpu_session(content)
    differences = []
    for batch in BATCHES:
        feeds = {
            value.name: np.concatenate([row[value.name] for row in rows[-batch:]])
            for value in session.get_inputs()
        }
        wanted = network.outputs([torch.from_numpy(values) for values in feeds.values()])
        try:
            given = session.run(list(network.names), feeds)
        except Exception as error:
            # onnxruntime's own exception classes share no other base.
            raise EngineError(
                f"the exported model cannot run a batch of {batch}, which the network can: "
                f"{first_line(error)}"
            ) from error
        for name, values, expected in zip(network.names, given, wanted, strict=True):
            where = f"output {name!r} of {batch} made-up row{'s' if batch > 1 else ''}"
            differences.append(_relative_difference(np.asarray(values), expected.numpy(), where))
    return max(differences)


def _relative_difference(values: npt.NDArray[Any], expected: npt.NDArray[Any], where: str) -> float:
    if values.shape != expected.shape:
        raise EngineError(
            f"{where}: the exported model gives {_shape(values)}, the network {_shape(expected)}: "
            f"something in its forward depends on the size of the batch"
        )
    # Rows of large inputs would hide differences of the others.
    rows = (len(expected), -1)
    values = values.astype(np.float64).reshape(rows)
    expected = expected.astype(np.float64).reshape(rows)
    finite = np.isfinite(expected)
    if not np.array_equal(finite, np.isfinite(values)):
        raise EngineError(f"{where}: not the same values are finite in torch and in ONNX")
    largest = np.abs(expected).max(axis=1, initial=0, where=finite)
    apart = np.abs(np.subtract(values, expected, where=finite, out=np.zeros_like(expected)))
    difference = float((apart.max(axis=1, initial=0) / np.where(largest > 0, largest, 1)).max())
    if difference > _TOLERANCE:
        raise EngineError(
            f"{where}: torch and ONNX differ by {difference:.2g} of the row's largest value; what "
            f"depends on values in a forward in Python, or is random, cannot be exported"
        )
    return difference


def _shape(values: npt.NDArray[Any]) -> str:
    return " x ".join(map(str, values.shape)) or "a lone number"
