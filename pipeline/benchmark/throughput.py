"""How fast engines run a model, by the size of a batch: no decoding, no queue, no server.

All engines are loaded side by side, with all sizes, and measured in turn: a window of each,
forwards and backwards by turns, so that what changes on the machine meanwhile changes all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from engine.cpu.cores import threads_per_context
from engine.errors import EngineError
from engine.interface import Engine, ExecutionContext
from engine.normalization import IMAGENET_NORMALIZATION
from engine.onnx_graph.model import OnnxModel
from engine.onnx_graph.trial_run import made_up_rows
from engine.options import EngineOptions
from engine.registry import EngineChoice, load_engine, suggested_instances
from interfaces.error_text import what_it_says
from measurement.statistics import (
    Interval,
    Ratio,
    Spread,
    paired_ratio,
    percentile,
    percentile_interval,
)

# Of a window that comes before it and does not count: caches hold another engine's weights.
_WARM_UP_SHARE = 0.2


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        batches: rows of a batch, several sizes.
        repeats: how many windows each engine has for each size.
        window_s: length of a window.
        instances: how many batches run side by side; None for as many as suit the engine.
        calibration_dir: folder of images, for int8.
    """

    batches: Sequence[int]
    repeats: int = 5
    window_s: float = 0.5
    instances: int | None = None
    calibration_dir: Path | None = None


@dataclass
class Row:
    """One engine with one size of batch.

    Attributes:
        choice: the engine and its precision.
        batch: rows of a batch.
        instances: how many batches ran side by side.
        images_per_s: of all instances together, for each window.
        batch_ms: how long every batch took, of all windows.
        failure: why it was not measured, or "".
    """

    choice: EngineChoice
    batch: int
    instances: int
    images_per_s: list[float] = field(default_factory=list)
    batch_ms: list[float] = field(default_factory=list)
    failure: str = ""

    @property
    def threads(self) -> int:
        """CPU threads of an instance."""
        return threads_per_context(self.instances)

    @property
    def spread(self) -> Spread:
        """Images a second over the windows."""
        return Spread.of(self.images_per_s)

    def ratio(self, reference: Row) -> Ratio:
        """Throughput beside that of another row, window by window."""
        return paired_ratio(self.images_per_s, reference.images_per_s)

    def tp_ms(self, q: float) -> float:
        """A percentile of the time that a batch takes."""
        return percentile(sorted(self.batch_ms), q)

    def tp_interval(self, q: float) -> Interval:
        """Its confidence interval of 95 %, in ms."""
        return percentile_interval(sorted(self.batch_ms), q)


def measure_throughput(
    model: OnnxModel,
    choices: Sequence[EngineChoice],
    plan: Plan,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Measure a model in engines.

    Args:
        model: its inputs have fixed sizes, but for the batch.
        choices: the engines.
        plan: what is measured.
        progress: called with a line now and then.

    Returns:
        A row for each engine and size. One that fails says why, and costs only itself.
    """
    rows = [
        Row(choice, batch, plan.instances or suggested_instances(choice))
        for choice in choices
        for batch in plan.batches
    ]
    with ExitStack() as stack:
        loaded: list[_Loaded] = []
        for row in rows:
            what = f"{row.choice.name} {row.choice.precision}, batches of {row.batch}"
            progress(f"loading {what} ...")
            one = _Loaded(model, row, plan)
            stack.callback(one.close)
            loaded.append(one)
        sound = [one for one in loaded if not one.row.failure]
        for repeat in range(plan.repeats):
            progress(f"measuring, repeat {repeat + 1} of {plan.repeats} ...")
            for one in sound if repeat % 2 == 0 else reversed(sound):
                one.measure(plan.window_s)
    return rows


class _Loaded:
    """An engine loaded for one row, and a thread for each of its instances."""

    def __init__(self, model: OnnxModel, row: Row, plan: Plan) -> None:
        self.row = row
        self._engine: Engine | None = None
        self._contexts: list[ExecutionContext] = []
        # A context is used by the thread that has made it, as in the pipeline.
        self._threads = [ThreadPoolExecutor(1) for _ in range(row.instances)]
        self._items = _items(model, row.batch)
        options = EngineOptions(
            precision=row.choice.precision,
            max_batch_size=row.batch,
            num_contexts=row.instances,
            threads_per_context=row.threads,
            calibration_dir=plan.calibration_dir,
            # Other values would not be faster or slower.
            calibration_normalization=model.declared_normalization or IMAGENET_NORMALIZATION,
        )
        try:
            if row.batch > 1 and (why := model.trial.only_alone):
                raise EngineError(f"the file fixes batches of one row: {why}")
            self._engine = load_engine(row.choice, model, options)
            # One after the other: a GPU cannot capture a graph while another thread allocates.
            for thread in self._threads:
                self._contexts.append(thread.submit(self._engine.create_context).result())
        except EngineError as error:
            row.failure = str(error)

    def measure(self, window_s: float) -> None:
        """Add a window to the row, unless it has failed."""
        self._run_for(_WARM_UP_SHARE * window_s)
        rates, times_s = self._run_for(window_s)
        if not self.row.failure:
            self.row.images_per_s.append(sum(rates))
            self.row.batch_ms += [1000 * batch_s for batch_s in times_s]

    def _run_for(self, duration_s: float) -> tuple[list[float], list[float]]:
        """Images a second of each instance, and the seconds of every batch."""
        rates, times_s = [], []
        pairs = zip(self._threads, self._contexts, strict=False)
        running = [
            thread.submit(_run, context, self._items, duration_s) for thread, context in pairs
        ]
        for instance in running:
            try:
                took_s = instance.result()
            except Exception as error:  # noqa: BLE001 (libraries' errors have no common base)
                self.row.failure = what_it_says(error)
                continue
            rates.append(len(took_s) * self.row.batch / sum(took_s))
            times_s += took_s
        return rates, times_s

    def close(self) -> None:
        """End the threads, and free the engine."""
        for thread in self._threads:
            thread.shutdown()
        for context in self._contexts:
            context.close()
        if self._engine is not None:
            self._engine.close()


def _run(
    context: ExecutionContext, items: Sequence[Sequence[torch.Tensor]], duration_s: float
) -> list[float]:
    """Seconds of each batch that one instance runs, at least one, until the time is over."""
    took_s: list[float] = []
    start_s = now_s = time.perf_counter()
    while now_s - start_s < duration_s or not took_s:
        begin_s = now_s
        context.run(items)
        now_s = time.perf_counter()
        took_s.append(now_s - begin_s)
    return took_s


def _items(model: OnnxModel, batch: int) -> list[list[torch.Tensor]]:
    """Made-up items of one row each, with a tensor for each input."""
    rows = [
        [torch.from_numpy(_known_to_torch(feeds[spec.name])) for spec in model.inputs]
        for feeds in made_up_rows(model.proto)
    ]
    return list(islice(cycle(rows), batch))


def _known_to_torch(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The values in a type that torch reads; engines take them from there."""
    return values if values.dtype.kind in "biuf" else values.astype(np.float32)
