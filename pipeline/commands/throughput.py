"""`python -m pipeline throughput`."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.onnx_graph.model import OnnxModel
from engine.registry import AUTO, ENGINE_NAMES, EngineChoice, check_sizes, choose_engine
from engine.zoo import open_model
from pipeline.benchmark.throughput import Plan, Row, measure_throughput
from pipeline.commands.console import complain, say, table, terminal_width
from pipeline.commands.pipeline_arguments import ALL_ENGINES

_HEADER = ("engine", "batch", "instances", "images/s", "x first", "ms a batch", "batches")
_LEGEND = """\
instances: batches side by side x CPU threads of each; images/s: of all instances together, median
and range of {repeats} windows of {window_s:g} s; x first: ratio to the first row, window by window,
with its 95 % interval, and "=" where that holds 1 and so shows no difference; ms a batch: median of
all batches, with its 95 % interval; it includes the copy of the rows. Rows are made up."""


def run_throughput(options: Namespace) -> int:
    """Measure; 1 if an engine or a size failed, 2 if it cannot begin."""
    try:
        model = open_model(options.model, open_size=options.size)
        if options.precision == "int8":
            # It is calibrated with images.
            model = model.with_image_input()
        if options.size is not None:
            model = model.with_input_size(*options.size)
        try:
            check_sizes(model)
        except EngineError as error:
            raise EngineError(f"{error}, or with --size 224x224 here") from error
        choices = _choices(options.engine, options.precision)
    except EngineError as error:
        complain(f"error: {error}")
        return 2
    folder = options.calibration_images
    plan = Plan(
        options.batches,
        options.repeats,
        options.window_s,
        options.instances,
        None if folder is None else Path(folder),
        options.skip_bad_images,
    )
    rows = measure_throughput(model, choices, plan, complain)
    if options.json:
        say(json.dumps(_as_json(model, plan, rows)))
    else:
        say(_words(model, plan, rows))
    return 1 if any(row.failure for row in rows) else 0


def _choices(names: Sequence[str], precision: str | None) -> list[EngineChoice]:
    """The engines of these names; of all engines those that this host has and that run it.

    Raises:
        EngineError: one that is named cannot run here, or none can.
    """
    if names != (ALL_ENGINES,):
        return [choose_engine(name, precision) for name in names]
    found = []
    for name in ENGINE_NAMES:
        try:
            found.append(choose_engine(name, precision))
        except EngineError as error:
            complain(f"left out: {error}")
    # Where none is left, what "auto" would take says why.
    return found or [choose_engine(AUTO, precision)]


def _words(model: OnnxModel, plan: Plan, rows: Sequence[Row]) -> str:
    measured = [row for row in rows if not row.failure]
    lines = [f"{model.name}: {', '.join(map(str, model.inputs))}", ""]
    if measured:
        cells = [_cells(row, measured[0]) for row in measured]
        legend = _LEGEND.format(repeats=plan.repeats, window_s=plan.window_s)
        lines += [table(_HEADER, cells, terminal_width()), "", legend]
    lines += [
        f"{row.choice.name} {row.choice.precision}, batch {row.batch}: {row.failure}"
        for row in rows
        if row.failure
    ]
    return "\n".join(lines)


def _cells(row: Row, first: Row) -> tuple[str, ...]:
    spread, ratio = row.spread, row.ratio(first)
    beside = "1"
    if row is not first:
        same = "" if ratio.is_distinct else " ="
        beside = f"{ratio.spread.median:.2f} {ratio.interval.text(2)}{same}"
    return (
        f"{row.choice.name} {row.choice.precision}",
        str(row.batch),
        f"{row.instances} x {row.threads}" if row.choice.device == "cpu" else str(row.instances),
        f"{spread.median:.1f} {spread.range_text(1)}",
        beside,
        f"{row.tp_ms(0.5):.2f} {row.tp_interval(0.5).text(2)}",
        str(len(row.batch_ms)),
    )


def _as_json(model: OnnxModel, plan: Plan, rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "model": str(model.path),
        "sha256": model.sha256,
        "repeats": plan.repeats,
        "window_s": plan.window_s,
        "rows": [_row_as_json(row) for row in rows],
    }


def _row_as_json(row: Row) -> dict[str, Any]:
    report: dict[str, Any] = {
        "engine": row.choice.name,
        "precision": row.choice.precision,
        "device": row.choice.device,
        "batch": row.batch,
        "instances": row.instances,
        "threads_per_instance": row.threads,
    }
    if row.failure:
        return {**report, "error": row.failure}
    interval = row.tp_interval(0.5)
    return {
        **report,
        "images_per_s": row.images_per_s,
        "batch_ms": row.tp_ms(0.5),
        "batch_interval_ms": [interval.low, interval.high],
        "batch_tp99_ms": row.tp_ms(0.99),
        "batches": len(row.batch_ms),
    }
