"""The model's file in plain onnxruntime, with nothing of this project's engines around it.

Of this project it takes the decoded and resized pixels, and what it has found in the file: layout,
order of the channels, mean and std, output and activation. What these mean is written here once
more, in NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from engine.errors import EngineError
from interfaces.error_text import in_one_line
from thriftpipe.trial.facts import ModelFacts

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}


class PlainModel:
    """An inference session of a file as it lies on the disk.

    Raises:
        EngineError: onnxruntime cannot load the file, or run it.
    """

    def __init__(self, path: Path, facts: ModelFacts) -> None:
        self._path, self._facts = path, facts
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        with _failures_of(path):
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        (self._input,) = self._session.get_inputs()

    def scores(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Scores of an image, of shape (classes,).

        Args:
            pixels: uint8 array of shape (height, width, 3): R, G and B.
        """
        batch = self._input.shape[0]
        with _failures_of(self._path):
            rows = np.repeat(self._prepared(pixels)[np.newaxis], _fixed(batch), axis=0)
            (values,) = self._session.run([self._facts.output], {self._input.name: rows})
        row = np.asarray(values, np.float32).reshape(len(rows), -1)[0]
        return _activated(row, self._facts.activation)

    def _prepared(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.generic]:
        """What the file takes for an image, without the batch."""
        facts = self._facts
        values = pixels.astype(np.float32)
        if facts.color == "grey":
            values = values @ np.array([[0.299], [0.587], [0.114]], np.float32)
            if facts.normalization is None:
                values = np.floor(values + 0.5)
        if facts.normalization is not None:
            channels = values.shape[2]
            per_channel = facts.normalization.per_channel()
            mean, std = (np.asarray(it[:channels], np.float32) for it in per_channel)
            values = (values - mean) / std
        if facts.color == "bgr":
            values = values[:, :, ::-1]
        if facts.layout == "nchw":
            values = values.transpose(2, 0, 1)
        return np.ascontiguousarray(values, _DTYPES[self._input.type])


@contextmanager
def _failures_of(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # What onnxruntime raises has no common base.
        raise EngineError(
            f"plain onnxruntime, beside which the answers are put, cannot run {path}: "
            f"{in_one_line(error)}"
        ) from error


def _fixed(batch: object) -> int:
    """The rows of a batch: one, unless the file fixes another number."""
    return batch if isinstance(batch, int) and batch > 0 else 1


def _activated(row: npt.NDArray[np.float32], activation: str) -> npt.NDArray[np.float32]:
    if activation == "softmax":
        powers = np.exp(row.astype(np.float64) - row.max())
        row = (powers / powers.sum()).astype(np.float32)
    elif activation == "sigmoid":
        row = (1 / (1 + np.exp(-row.astype(np.float64)))).astype(np.float32)
    return row if len(row) > 1 else np.concatenate([1 - row, row])
