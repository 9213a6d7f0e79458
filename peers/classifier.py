"""What every peer serves: the same decoding, the same resize, the same graph in the same engine."""

from __future__ import annotations

import json
import platform
import queue
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from interfaces.peers import STARTED_MARK, Setup
from interfaces.versions import package_versions

Pixels: TypeAlias = npt.NDArray[np.uint8]
Scores: TypeAlias = npt.NDArray[np.float32]


class Decoder:
    """Encoded images to pixels, in any thread, which does it alone.

    Args:
        setup: what is served.
    """

    def __init__(self, setup: Setup) -> None:
        cv2.setNumThreads(1)
        self._size = (setup.width, setup.height)

    def pixels(self, data: bytes) -> Pixels:
        """RGB pixels of the network's size.

        Raises:
            ValueError: the data is no image.
        """
        encoded = np.frombuffer(data, np.uint8)
        decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if data else None
        if decoded is None:
            raise ValueError("the data is no image that OpenCV decodes")
        resized = cv2.resize(decoded, self._size, interpolation=cv2.INTER_LINEAR)
        rgb: Pixels = cv2.cvtColor(resized, cv2.COLOR_BGR2RGB)  # type: ignore[assignment]
        return rgb


class Classifier(Decoder):
    """Encoded images to their best label and its score.

    It may be used from several threads.

    Args:
        setup: what is served.
        parallel: runs at the same time in this process.
        threads: cores that each of them uses.
        max_batch_size: images of the largest run.
    """

    def __init__(
        self, setup: Setup, parallel: int = 1, threads: int = 1, max_batch_size: int = 1
    ) -> None:
        super().__init__(setup)
        self._setup = setup
        self._model = _MODELS[setup.engine](setup, parallel, threads, max_batch_size)
        self._names = Path(setup.labels).read_text(encoding="utf-8").splitlines()

    def infer(self, batch: Sequence[Pixels]) -> list[tuple[str, float]]:
        """The best label and its score for each image's pixels."""
        scores = self._model.run(np.stack(batch))
        if self._setup.softmax:
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            scores /= scores.sum(axis=1, keepdims=True)
        return [(self._label(row, scores.shape[1]), float(row.max())) for row in scores]

    def _label(self, row: Scores, classes: int) -> str:
        best = int(row.argmax())
        return self._names[best] if classes == len(self._names) else f"class_{best}"

    def classify(self, data: bytes) -> tuple[str, float]:
        """The best label of one encoded image, and its score; ValueError as in `pixels`."""
        return self.infer([self.pixels(data)])[0]

    def classify_batch(self, batch: Sequence[bytes]) -> list[tuple[str, float]]:
        """The same of several; ValueError as in `pixels`."""
        return self.infer([self.pixels(data) for data in batch])


class _Pool:
    """What one run at a time uses, whichever thread it is in.

    Not `threading.local`: torchpipe's threads are new ones to the interpreter with each batch.
    """

    def __init__(self, entries: Sequence[Any]) -> None:
        # The last one first: its memory is warm.
        self._free: queue.LifoQueue[Any] = queue.LifoQueue()
        for entry in entries:
            self._free.put(entry)

    @contextmanager
    def taken(self) -> Iterator[Any]:
        """One of them for the block; waits for it."""
        entry = self._free.get()
        try:
            yield entry
        finally:
            self._free.put(entry)


class _Model(ABC):
    """Runs the graph.

    Args:
        setup: what is served.
        parallel: runs at the same time.
        threads: cores that each of them uses.
        max_batch_size: rows of the largest run.
    """

    @abstractmethod
    def __init__(self, setup: Setup, parallel: int, threads: int, max_batch_size: int) -> None: ...

    @abstractmethod
    def run(self, pixels: Pixels) -> Scores:
        """The output for pixels of shape (N, height, width, 3)."""


class _OnnxRuntime(_Model):
    def __init__(self, setup: Setup, parallel: int, threads: int, max_batch_size: int) -> None:
        del max_batch_size
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # The pool is shared; every thread that calls `run` works, too.
        options.intra_op_num_threads = parallel * (threads - 1) + 1
        options.inter_op_num_threads = 1
        if parallel > 1 or threads == 1:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            setup.graph, options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    def run(self, pixels: Pixels) -> Scores:
        scores: Scores = self._session.run(None, {self._input: pixels})[0]
        return scores.reshape(len(pixels), -1)


class _OpenVino(_Model):
    def __init__(self, setup: Setup, parallel: int, threads: int, max_batch_size: int) -> None:
        del max_batch_size
        import openvino

        hint = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}[setup.precision]
        settings = {
            "NUM_STREAMS": str(parallel),
            "INFERENCE_NUM_THREADS": parallel * threads,
            "INFERENCE_PRECISION_HINT": hint,
            "PERFORMANCE_HINT": "LATENCY" if parallel == 1 else "THROUGHPUT",
            "ENABLE_CPU_PINNING": False,
        }
        core = openvino.Core()
        self._compiled = core.compile_model(core.read_model(setup.graph), "CPU", settings)
        self._free = _Pool([self._compiled.create_infer_request() for _ in range(parallel)])
        # The binding's first tensors of a process must not be made by two threads at once.
        self.run(np.zeros((1, setup.height, setup.width, 3), np.uint8))

    def run(self, pixels: Pixels) -> Scores:
        with self._free.taken() as request:
            scores: Scores = request.infer([pixels], share_inputs=True)[0]
        return scores.reshape(len(pixels), -1)


class _Torch(_Model):
    """This project's own engine, so that servers differ only in what is around it."""

    def __init__(self, setup: Setup, parallel: int, threads: int, max_batch_size: int) -> None:
        from engine.classifier import (
            classifier_input,
            classifier_normalization,
            classifier_output,
        )
        from engine.options import EngineOptions
        from engine.registry import choose_engine, load_engine
        from engine.zoo import open_model

        model = classifier_input(classifier_output(open_model(setup.model), None))
        normalization = classifier_normalization(model, None, None)
        self._engine = load_engine(
            choose_engine(setup.engine, setup.precision),
            model.with_uint8_input(normalization),
            EngineOptions(
                max_batch_size=max_batch_size, num_contexts=parallel, threads_per_context=threads
            ),
        )
        self._free = _Pool([self._engine.create_context() for _ in range(parallel)])

    def run(self, pixels: Pixels) -> Scores:
        import torch

        rows = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        with self._free.taken() as context:
            # The next run overwrites it.
            scores: Scores = context.run([[rows]])[0].float().numpy().copy()
        return scores.reshape(len(pixels), -1)


_MODELS: dict[str, type[_Model]] = {
    "onnxruntime": _OnnxRuntime,
    "openvino": _OpenVino,
    "torch": _Torch,
}


def announce(setup: Setup, distribution: str) -> None:
    """Log the versions that run, in one line that the load test reads."""
    packages = ["numpy", "opencv-python-headless", setup.engine, distribution]
    versions = {**package_versions(packages), "python": platform.python_version()}
    sys.stderr.write(STARTED_MARK + json.dumps(versions) + "\n")
    sys.stderr.flush()
