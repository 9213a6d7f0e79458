"""`python -m pipeline bench`."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any

from pipeline.benchmark.bench import Bench, NodeLoad, bench
from pipeline.benchmark.load import Load, LoadOutcome
from pipeline.commands.console import complain, say, table, terminal_width
from pipeline.commands.loading import CANNOT_BEGIN, loaded_pipe, named_images
from pipeline.image_files import read_images
from pipeline.runtime.counts import LeaveReason

_PERCENTILES = (50, 90, 99)
_NODE_HEADER = (
    *("node", "instances", "images", "failed", "batches", "rows", "waited ms", "worked ms", "busy"),
    *(reason.value for reason in LeaveReason),
)
_SIZE_HEADER = ("node", "rows: share of its batches")
_LEGEND = """\
waited: an image, in the queue; worked: an instance, on a batch; rows: of a batch, on average;
busy: share of the instances' time; full, idle, timeout: why batches left, which pipeline/README.md
explains."""
_SHOWN_FAILURES = 5


def run_bench(options: Namespace) -> int:
    """Put load on the pipeline; 1 if an image failed, 2 if it cannot begin."""
    try:
        files = named_images(options, options.photos)
        images = read_images(files)
        if len(images) < len(files):
            complain(f"{len(images)} of {len(files)} images, evenly from first to last, are sent")
        load = Load(
            options.clients,
            options.request_batch,
            None if options.images else options.duration_s,
            options.images,
        )
        with loaded_pipe(options) as loaded:
            complain(f"{_words(load)} of {len(images)} files ...")
            measured = bench(loaded, images, load, options.node)
    except (*CANNOT_BEGIN, OSError) as error:
        complain(f"error: {error}")
        return 2
    if options.json:
        say(json.dumps(as_json(measured)))
    else:
        say("\n".join(_outcome_lines(measured.outcome)))
        say("\n" + _node_table(measured))
    return 1 if measured.outcome.failures else 0


def _words(load: Load) -> str:
    clients = f"{load.clients} client{'s' if load.clients > 1 else ''}"
    end = f"{load.images} images" if load.images else f"{load.duration_s:g} s"
    batch = f", {load.request_batch} images a request" if load.request_batch > 1 else ""
    return f"{clients}{batch}, {end}"


def as_json(measured: Bench) -> dict[str, Any]:
    """Everything that was measured but the latency of each request."""
    outcome = measured.outcome
    parts = outcome.qps_of_parts
    report: dict[str, Any] = {
        "clients": outcome.load.clients,
        "request_batch": outcome.load.request_batch,
        "images": outcome.images,
        "requests": len(outcome.ends),
        "wall_s": outcome.wall_s,
        "qps": outcome.qps,
        "qps_of_parts": {"median": parts.median, "low": parts.low, "high": parts.high},
        "cpu_cores": outcome.cpu_s / outcome.wall_s,
        "failures": dict(outcome.failures),
    }
    if outcome.latencies_ms:
        report["mean_ms"] = outcome.mean_ms
        for percent in _PERCENTILES:
            interval = outcome.tp_interval(percent / 100)
            report[f"tp{percent}_ms"] = outcome.tp_ms(percent / 100)
            report[f"tp{percent}_interval_ms"] = [interval.low, interval.high]
    report["nodes"] = {
        name: _node_as_json(node, outcome.wall_s) for name, node in measured.nodes.items()
    }
    return report


def _node_as_json(node: NodeLoad, wall_s: float) -> dict[str, Any]:
    counts = node.counts
    return {
        "instances": node.instances,
        "images": counts.items,
        "failed_images": counts.failed_items,
        "waited_ms": counts.queue_ms,
        "worked_ms": counts.forward_ms,
        "busy": node.busy(wall_s),
        "batches_by_reason": {
            reason.value: counts.batches.by_reason[reason] for reason in LeaveReason
        },
        "batches_by_rows": {str(rows): n for rows, n in sorted(counts.batches.by_size.items())},
    }


def _outcome_lines(outcome: LoadOutcome) -> list[str]:
    parts = outcome.qps_of_parts
    lines = [
        f"QPS   {outcome.qps:.1f}  (fifths of the run: {parts.range_text(1)})",
    ]
    if outcome.latencies_ms:
        lines += [
            f"TP{percent}  {outcome.tp_ms(percent / 100):.2f} ms  "
            f"(95 % interval {outcome.tp_interval(percent / 100).text(2)})"
            for percent in _PERCENTILES
        ]
        lines.append(
            f"mean  {outcome.mean_ms:.2f} ms of {len(outcome.latencies_ms)} requests in "
            f"{outcome.wall_s:.1f} s; {outcome.cpu_s / outcome.wall_s:.1f} cores busy"
        )
    failures = outcome.failures
    if failures:
        lines.append(f"{failures.total()} of {failures.total() + outcome.images} images failed:")
        lines += [
            f"  {count} x {message}" for message, count in failures.most_common(_SHOWN_FAILURES)
        ]
        if len(failures) > _SHOWN_FAILURES:
            lines.append(f"  and {len(failures) - _SHOWN_FAILURES} other messages; --json has all")
    return lines


def _node_table(measured: Bench) -> str:
    """A row a node, and below it how many batches there were of each size."""
    rows, sizes = [], []
    for name, node in measured.nodes.items():
        counts, batches = node.counts, node.counts.batches
        number = max(1, batches.by_size.total())
        rows.append(
            (
                name,
                str(node.instances),
                str(counts.items),
                str(counts.failed_items),
                str(batches.by_size.total()),
                f"{node.mean_rows:.2f}",
                f"{counts.queue_ms / max(1, counts.items):.2f}",
                f"{counts.forward_ms / number:.2f}",
                f"{100 * node.busy(measured.outcome.wall_s):.0f} %",
                *(str(batches.by_reason[reason]) for reason in LeaveReason),
            )
        )
        shares = [
            f"{size}: {100 * count / number:.0f} %"
            for size, count in sorted(batches.by_size.items())
        ]
        sizes.append((name, ", ".join(shares) or "-"))
    width = terminal_width()
    return "\n\n".join(
        [table(_NODE_HEADER, rows, width), table(_SIZE_HEADER, sizes, width), _LEGEND]
    )
