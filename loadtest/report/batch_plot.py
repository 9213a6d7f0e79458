"""The chart of batches: which share of a node's images was in batches of each size."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from loadtest.report.batch_summary import NodeBatches
from loadtest.report.charts import Chart
from loadtest.report.style import CHART_WIDTH_IN, MARK, ON_BAR, PALETTE, rows_of_bars

_LEAST_LABELLED_SHARE = 0.05


def chart(name: str, title: str, nodes: Sequence[NodeBatches]) -> Chart:
    """The chart of a workload; at least one node."""
    told = "; ".join(
        f"{node.variant}, {node.node}: {node.mean_size or 0:.2f} in the mean" for node in nodes
    )
    return Chart(
        f"{name}-batches",
        title,
        "images by the size of their batch",
        f"Sizes of batches. {told}.",
        lambda: _figure(nodes),
    )


def _figure(nodes: Sequence[NodeBatches]) -> Figure:
    figure = Figure(figsize=(CHART_WIDTH_IN, 0.6 + 0.5 * len(nodes)), layout="constrained")
    axes = figure.subplots()
    rows_of_bars(axes, [f"{node.variant}: {node.node}" for node in nodes])
    for position, node in enumerate(nodes):
        left = 0.0
        for size, share in node.shares_by_size.items():
            # Neighbouring sizes differ in colour; the number says which one it is.
            colour = PALETTE[2] if size % 2 else PALETTE[3]
            axes.barh(position, 100 * share, 0.42, left=left, color=colour, gid=MARK)
            if share >= _LEAST_LABELLED_SHARE:
                middle = (left + 50 * share, position)
                axes.annotate(str(size), middle, ha="center", va="center", color=ON_BAR, fontsize=9)
            left += 100 * share
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of the node's images; numbers: images in the batch")
    return figure
