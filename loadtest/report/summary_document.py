"""summary.json: the numbers of a report for programs; docs/summary.schema.json describes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loadtest.records.metrics import METRICS
from loadtest.records.run import Run
from loadtest.report.batch_summary import NodeBatches
from loadtest.report.marks import marks_of
from loadtest.report.summary import Row
from loadtest.report.verdict import Verdict
from loadtest.report.waterfall import Waterfall
from measurement.statistics import Interval, Ratio

SUMMARY_VERSION = 1
_SENTENCES = ("switch", "cause", "sureness")


def summary_document(run: Run, values: Mapping[str, Any]) -> dict[str, Any]:
    """The summary of a run.

    Args:
        run: what the raw files hold.
        values: what the pages show of it; of each of the workloads its rows, verdict, waterfall
            and batches.
    """
    return {
        "summary_version": SUMMARY_VERSION,
        "kind": run.kind,
        "command": run.command,
        "started": run.started,
        "complete": run.complete,
        "source": run.source,
        "machine": run.machine,
        "settings": run.settings,
        "workloads": [_workload(chapter) for chapter in values["workloads"]],
    }


def _workload(chapter: Mapping[str, Any]) -> dict[str, Any]:
    workload = chapter["workload"]
    return {
        "name": workload.name,
        "model": workload.model,
        "model_sha256": workload.model_sha256,
        "engine": workload.engine,
        "precision": workload.precision,
        "verdict": _verdict(chapter["verdict"]),
        "waterfall": _waterfall(chapter["waterfall"]),
        "variants": [_row(row) for row in chapter["rows"]],
        "batches": [_batches(node) for node in chapter.get("batch_nodes", ())],
    }


def _verdict(told: Verdict | None) -> dict[str, Any] | None:
    if told is None:
        return None
    return {
        "decision": told.decision.value,
        "sentences": dict(zip(_SENTENCES, told.sentences, strict=True)),
        "pipeline": None if told.pipeline is None else told.pipeline.name,
        "gain": _ratio(told.gain),
        "compared": None if told.compared is None else told.compared.name,
        "control": None if told.control is None else told.control.name,
        "control_ratio": _ratio(told.control_ratio),
    }


def _waterfall(found: Waterfall | None) -> list[dict[str, Any]]:
    return [
        {
            "variant": step.row.name,
            "changes": [*step.changes],
            "ratio": _ratio(step.ratio),
            "share": step.share,
        }
        for step in (found.steps if found else ())
    ]


def _row(row: Row) -> dict[str, Any]:
    served = bool(row.latencies_ms)
    return {
        "name": row.name,
        "description": row.variant.description,
        "processes": row.processes,
        "clients": row.clients,
        "offered_per_s": row.offered_per_s,
        **_lag(row),
        "images_per_s": {
            "median": row.qps.median,
            "min": row.qps.low,
            "max": row.qps.high,
            "repeats": [*row.rates.values()],
        },
        "reference": row.reference if row.ratio is not None else None,
        "ratio": _ratio(row.ratio),
        "latency_ms": {
            name: {"value": row.tp_ms(q), **_bounds(row.tp_interval(q))}
            for name, q in (("tp50", 0.50), ("tp99", 0.99))
        }
        if served
        else None,
        "requests": row.requests,
        "failed_images": row.failed_images,
        "usage": {
            # Without a server the samples cover loading as well, so they say nothing of what ran.
            metric.usage: None
            if metric.of_server and row.variant.server is None
            else _plain(row.usage[metric.usage])
            for metric in METRICS
        },
        "marks": marks_of(row),
    }


def _lag(row: Row) -> dict[str, Any]:
    """Of an open loop: how late the load generator itself was, which latencies contain."""
    if row.offered_per_s is None:
        return {}
    return {"generator_lag_ms": {"tp50": row.lag_ms(0.50), "tp99": row.lag_ms(0.99)}}


def _batches(node: NodeBatches) -> dict[str, Any]:
    return {
        "variant": node.variant,
        "node": node.node,
        "by_size": {str(size): count for size, count in sorted(node.by_size.items())},
        "by_reason": dict(sorted(node.by_reason.items())),
    }


def _ratio(ratio: Ratio | None) -> dict[str, Any] | None:
    if ratio is None:
        return None
    return {
        "median": ratio.spread.median,
        **_bounds(ratio.interval),
        "repeats": ratio.pairs,
        "beyond_chance": ratio.is_distinct,
    }


def _bounds(interval: Interval | None) -> dict[str, Any]:
    """The 95 % interval; null is a bound that the data does not reach."""
    return {
        "low": None if interval is None else interval.low,
        "high": None if interval is None else interval.high,
    }


def _plain(value: Any) -> Any:
    return [*value] if isinstance(value, Sequence) and not isinstance(value, str) else value
