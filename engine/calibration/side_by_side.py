"""Contexts of one engine at work side by side, each in a thread of its own, as in the pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import cycle, islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from engine.interface import Engine, ExecutionContext
from engine.onnx_graph.model import OnnxModel
from engine.onnx_graph.trial_run import made_up_rows

Items = Sequence[Sequence[torch.Tensor]]


class SideBySide:
    """So many contexts, and the threads that have made them.

    Raises:
        EngineError: a context cannot be made.
    """

    def __init__(self, engine: Engine, contexts: int) -> None:
        self._threads = [ThreadPoolExecutor(1) for _ in range(contexts)]
        self._contexts: list[ExecutionContext] = []
        try:
            # One after the other: a GPU cannot capture a graph while another thread allocates.
            for thread in self._threads:
                self._contexts.append(thread.submit(engine.create_context).result())
        except BaseException:
            self.close()
            raise

    def run(
        self, items: Items, duration_s: float, before_item: Callable[[], object] | None = None
    ) -> list[list[float]]:
        """Run the same batch again and again in all contexts.

        Args:
            items: the batch.
            duration_s: how long.
            before_item: what a thread does before each run, once for each item.

        Returns:
            For each of them the seconds of every batch, of one at least, and of what comes before.

        Raises:
            Exception: what one of them has raised, when all have ended.
        """
        pairs = zip(self._threads, self._contexts, strict=True)
        running = [
            thread.submit(_run, context, items, duration_s, before_item)
            for thread, context in pairs
        ]
        wait(running)
        return [it.result() for it in running]

    def close(self) -> None:
        """End the threads, and close the contexts."""
        for thread in self._threads:
            thread.shutdown()
        for context in self._contexts:
            context.close()


def rows_per_s(batch: int, took_s: Sequence[Sequence[float]]) -> float:
    """Rows a second of all contexts together, from what `SideBySide.run` returns."""
    return sum(len(times_s) * batch / sum(times_s) for times_s in took_s)


def made_up_items(model: OnnxModel, batch: int) -> list[list[torch.Tensor]]:
    """Items of one row each, with a tensor for each input."""
    rows = [
        [torch.from_numpy(_known_to_torch(feeds[spec.name])) for spec in model.inputs]
        for feeds in made_up_rows(model.proto)
    ]
    return list(islice(cycle(rows), batch))


def _run(
    context: ExecutionContext,
    items: Items,
    duration_s: float,
    before_item: Callable[[], object] | None,
) -> list[float]:
    took_s: list[float] = []
    start_s = now_s = time.perf_counter()
    while now_s - start_s < duration_s or not took_s:
        begin_s = now_s
        if before_item is not None:
            for _ in items:
                before_item()
        context.run(items)
        now_s = time.perf_counter()
        took_s.append(now_s - begin_s)
    return took_s


def _known_to_torch(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The values in a type that torch reads; engines take them from there."""
    return values if values.dtype.kind in "biuf" else values.astype(np.float32)
