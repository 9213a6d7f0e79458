"""Execution on an NVIDIA GPU: buffers, a stream and CUDA graphs around what computes."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from engine.contexts.row_copies import stage_rows
from engine.contexts.stream_context import StreamContext
from engine.errors import EngineError
from engine.interface import Engine, copy_rows

# Runs before a graph is captured: the first ones choose kernels and take memory.
_WARM_UP_RUNS = 2
_HALF_WAY_FROM = 16
# A capture must not see the allocations and kernel trials of another one.
_CAPTURING = threading.Lock()


class GraphPrologue(ABC):
    """Work on the GPU that fills a context's input, captured in its graphs before the network.

    Launched by itself it would cost several calls of torch a batch; in the graph it costs none.
    """

    @abstractmethod
    def enqueue(self, rows: torch.Tensor) -> None:
        """Enqueue on the current stream what fills these rows of the input buffer.

        It is captured once for each batch size, and must read what differs from batch to batch
        from memory that stays in its place.
        """

    @abstractmethod
    def prepare(self, sources: Sequence[Any], rows: int) -> None:
        """Write where a batch's rows come from, before its graph is launched.

        Args:
            sources: one a row.
            rows: rows of the graph, which may be more: the results of the others are not read.
        """


@dataclass(frozen=True)
class _Cut:
    """Graph and buffers for one number of rows, cut beforehand.

    Every call of torch, cutting a tensor too, gives the interpreter's lock away. Under load another
    thread takes it, and a run that has only a handful of such calls left is done in half the time.
    """

    graph: torch.cuda.CUDAGraph
    inputs: list[torch.Tensor]
    staging: list[torch.Tensor]
    outputs: list[torch.Tensor]
    results: list[torch.Tensor]


class CudaContext(StreamContext):
    """Buffers, a stream, and a CUDA graph for each of some batch sizes.

    A graph is launched as one call, whatever the number of its kernels. A batch runs in the
    smallest graph that holds it; the rows that are too many compute on what an earlier batch left
    there, and their scores are not read.

    Args:
        engine: the engine, whose weights lie on `device` already.
        device: the GPU.
        min_rows: rows of the smallest batch that `_compute` takes.
        max_rows: rows of the largest batch.
    """

    def __init__(self, engine: Engine, device: torch.device, min_rows: int, max_rows: int) -> None:
        super().__init__(engine, device, max_rows)
        self._staging = [spec.allocate(max_rows, pinned=True) for spec in engine.inputs]
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, list[torch.Tensor]]] = {}
        self._sizes = graph_batch_sizes(min_rows, max_rows)
        with _CAPTURING, torch.cuda.device(device):
            # The largest first: the smaller ones fit into its memory.
            for rows in reversed(self._sizes):
                self._graphs[rows] = self._capture(rows)
        self._results = [
            torch.empty(output.shape, dtype=output.dtype, pin_memory=True)
            for output in self._graphs[max_rows][1]
        ]
        self._cuts = {rows: self._cut(rows) for rows in range(1, max_rows + 1)}
        self._prologue: GraphPrologue | None = None
        self._graphs_with_prologue: dict[int, torch.cuda.CUDAGraph] = {}

    def put_prologue(self, prologue: GraphPrologue) -> None:
        """Capture a second set of graphs, in which `prologue` fills the first input.

        They also copy the outputs to CPU memory, so that a batch is one launch and one wait.
        """
        with _CAPTURING, torch.cuda.device(self._device):
            for rows in reversed(self._sizes):
                self._graphs_with_prologue[rows] = self._capture_with(prologue, rows)
        self._prologue = prologue

    def run_prologue(self, sources: Sequence[Any]) -> list[torch.Tensor]:
        """Run one batch whose rows the prologue makes of `sources`, one each; as `run` otherwise.

        The caller's stream has to be this context's: the sources may still be in the making there.
        """
        rows = len(sources)
        if self._prologue is None or not 1 <= rows <= self._max_batch_size:
            raise EngineError(
                f"a batch for the prologue holds 1 to {self._max_batch_size} rows, got {rows}"
            )
        size = next(size for size in self._sizes if size >= rows)
        self._prologue.prepare(sources, size)
        self._graphs_with_prologue[size].replay()
        self._wait()
        return self._cuts[rows].results

    def close(self) -> None:
        """Free the graphs, and the memory that they hold on the GPU."""
        super().close()
        self._prologue = None
        self._graphs_with_prologue.clear()
        self._cuts.clear()
        self._graphs.clear()

    def _place(self, items: Sequence[Sequence[torch.Tensor]], rows: int) -> None:
        """Copy a batch to the GPU: what lies in CPU memory in one go, from page-locked memory."""
        cut = self._cuts[rows]
        places = {tensor.is_cuda for item in items for tensor in item}
        if places == {False}:
            stage_rows(items, self._staging, self.engine.inputs)
            for buffer, staged in zip(cut.inputs, cut.staging, strict=True):
                buffer.copy_(staged, non_blocking=True)
        elif places == {True} and len(items) > 1:
            for tensors, buffer in zip(zip(*items, strict=True), cut.inputs, strict=True):
                torch.cat(tensors, out=buffer)
        else:
            copy_rows(items, self._inputs)

    def _execute(self, rows: int) -> list[torch.Tensor]:
        cut = self._cuts[rows]
        cut.graph.replay()
        for result, output in zip(cut.results, cut.outputs, strict=True):
            result.copy_(output, non_blocking=True)
        self._wait()
        return cut.results

    def _cut(self, rows: int) -> _Cut:
        """The buffers and the graph for a batch of so many rows."""
        graph, outputs = self._graphs[next(size for size in self._sizes if size >= rows)]
        return _Cut(
            graph,
            inputs=[buffer[:rows] for buffer in self._inputs],
            staging=[staged[:rows] for staged in self._staging],
            outputs=[output[:rows] for output in outputs],
            results=[result[:rows] for result in self._results],
        )

    def _capture(self, rows: int) -> tuple[torch.cuda.CUDAGraph, list[torch.Tensor]]:
        """The graph of one batch size, and the tensors that it leaves its outputs in."""
        inputs = [buffer[:rows] for buffer in self._inputs]
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UP_RUNS):
                self._compute(inputs)
            self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with self._capturing(graph):
            outputs = self._compute(inputs)
        return graph, outputs

    def _capture_with(self, prologue: GraphPrologue, rows: int) -> torch.cuda.CUDAGraph:
        inputs = [buffer[:rows] for buffer in self._inputs]
        with torch.cuda.stream(self._stream):
            prologue.enqueue(inputs[0])
            self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with self._capturing(graph):
            prologue.enqueue(inputs[0])
            for result, output in zip(self._results, self._compute(inputs), strict=True):
                result[:rows].copy_(output, non_blocking=True)
        return graph

    def _capturing(self, graph: torch.cuda.CUDAGraph) -> AbstractContextManager[None]:
        """Captures what is enqueued into a graph that shares memory with the others."""
        pool = next((captured.pool() for captured, _ in self._graphs.values()), None)
        # Other threads may go on with their own work on the GPU meanwhile.
        return torch.cuda.graph(
            graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"
        )


def graph_batch_sizes(smallest: int, largest: int) -> list[int]:
    """Batch sizes that get a graph: powers of two, and from 16 on half-way between them too.

    Below, a few rows more cost a GPU next to nothing; and every graph makes the start longer.
    """
    sizes = {smallest, largest}
    size = 1
    while size < largest:
        sizes |= {size} if size < _HALF_WAY_FROM else {size, size + size // 2}
        size *= 2
    return sorted(size for size in sizes if smallest <= size <= largest)
