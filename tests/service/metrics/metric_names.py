"""The table of metrics, as the page about them has it, and as names of series."""

from __future__ import annotations

from interfaces.markdown import prose_table
from service.metrics.metric_table import METRICS


def metric_table() -> str:
    """The metrics in Markdown."""
    rows = [
        (
            f"`{metric.name}`",
            metric.kind,
            ", ".join(f"`{label}`" for label in metric.labels),
            metric.help,
        )
        for metric in METRICS
    ]
    return prose_table(["metric", "kind", "labels", "what it is"], rows)


def series_names() -> frozenset[str]:
    """The names of all series that a scrape may have."""
    names = set()
    for metric in METRICS:
        if metric.kind == "histogram":
            names |= {f"{metric.name}_{part}" for part in ("bucket", "sum", "count")}
        else:
            names.add(metric.name)
    return frozenset(names)
