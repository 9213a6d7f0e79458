"""How fast engines run a model, by the size of a batch: no decoding, no queue, no server.

All engines are loaded side by side, with all sizes, and measured in turn: a window of each,
forwards and backwards by turns, so that what changes on the machine meanwhile changes all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from engine.calibration.side_by_side import SideBySide, made_up_items, rows_per_s
from engine.cpu.cores import threads_per_context
from engine.errors import EngineError
from engine.normalization import IMAGENET_NORMALIZATION
from engine.onnx_graph.model import OnnxModel
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
        skips_bad_images: whether those of it that cannot be used are left out, and not a mistake.
    """

    batches: Sequence[int]
    repeats: int = 5
    window_s: float = 0.5
    instances: int | None = None
    calibration_dir: Path | None = None
    skips_bad_images: bool = False


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
    """An engine loaded for one row, and its instances."""

    def __init__(self, model: OnnxModel, row: Row, plan: Plan) -> None:
        self.row = row
        self._resources = ExitStack()
        self._items = made_up_items(model, row.batch)
        options = EngineOptions(
            precision=row.choice.precision,
            max_batch_size=row.batch,
            num_contexts=row.instances,
            threads_per_context=row.threads,
            calibration_dir=plan.calibration_dir,
            calibration_skips_bad=plan.skips_bad_images,
            # Other values would not be faster or slower.
            calibration_normalization=model.declared_normalization or IMAGENET_NORMALIZATION,
        )
        try:
            if row.batch > 1 and (why := model.trial.only_alone):
                raise EngineError(f"the file fixes batches of one row: {why}")
            engine = load_engine(row.choice, model, options)
            self._resources.callback(engine.close)
            self._instances = SideBySide(engine, row.instances)
            self._resources.callback(self._instances.close)
        except EngineError as error:
            row.failure = str(error)

    def measure(self, window_s: float) -> None:
        """Add a window to the row, unless it has failed."""
        try:
            self._instances.run(self._items, _WARM_UP_SHARE * window_s)
            took_s = self._instances.run(self._items, window_s)
        except Exception as error:  # noqa: BLE001 (libraries' errors have no common base)
            self.row.failure = what_it_says(error)
        if not self.row.failure:
            self.row.images_per_s.append(rows_per_s(self.row.batch, took_s))
            self.row.batch_ms += [1000 * batch_s for times_s in took_s for batch_s in times_s]

    def close(self) -> None:
        """End the instances, and free the engine."""
        self._resources.close()
