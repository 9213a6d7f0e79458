"""The chart of stage times: a bar a variant, made of the parts of its requests' mean latency."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from loadtest.report.charts import Chart
from loadtest.report.stage_summary import KINDS
from loadtest.report.style import CHART_WIDTH_IN, FAINT, MARK, ON_BAR, PALETTE, rows_of_bars

_COLOURS = dict(zip(KINDS, (*PALETTE[:5], FAINT, PALETTE[5]), strict=True))
# Narrower parts of a bar have no room for their number, as a share of the longest bar.
_LEAST_LABELLED_SHARE = 0.07


def chart(name: str, title: str, variants: Mapping[str, Mapping[str, float]]) -> Chart:
    """The chart of a workload.

    Args:
        name: beginning of the file name.
        title: of the workload.
        variants: name to kind of stage to mean in ms, as `by_kind` gives it; at least one.
    """
    told = "; ".join(
        f"{variant}: {', '.join(f'{kind} {mean_ms:.1f}' for kind, mean_ms in kinds.items())}"
        for variant, kinds in variants.items()
    )
    return Chart(
        f"{name}-stages",
        title,
        "where the time of a request goes",
        f"Parts of the mean latency at the client in ms. {told}.",
        lambda: _bars(variants),
    )


def _bars(variants: Mapping[str, Mapping[str, float]]) -> Figure:
    longest_ms = max(sum(kinds.values()) for kinds in variants.values())
    figure = Figure(figsize=(CHART_WIDTH_IN, 1.0 + 0.5 * len(variants)), layout="constrained")
    axes = figure.subplots()
    rows_of_bars(axes, [*variants])
    labelled: set[str] = set()
    for position, kinds in enumerate(variants.values()):
        left_ms = 0.0
        for kind, mean_ms in kinds.items():
            label = None if kind in labelled else kind
            labelled.add(kind)
            axes.barh(
                position,
                mean_ms,
                0.42,
                left=left_ms,
                color=_COLOURS[kind],
                label=label,
                gid=MARK,
            )
            if mean_ms >= _LEAST_LABELLED_SHARE * longest_ms:
                middle = (left_ms + mean_ms / 2, position)
                text = f"{mean_ms:.1f}"
                axes.annotate(text, middle, ha="center", va="center", color=ON_BAR, fontsize=9)
            left_ms += mean_ms
    axes.set_xlim(0, 1.02 * longest_ms)
    axes.set_xlabel("mean latency at the client, in ms")
    handles, names = axes.get_legend_handles_labels()
    in_order = sorted(zip(names, handles, strict=True), key=lambda pair: KINDS.index(pair[0]))
    figure.legend(
        [handle for _, handle in in_order],
        [name for name, _ in in_order],
        loc="outside lower center",
        ncols=min(4, len(in_order)),
        columnspacing=1.0,
        handlelength=1.2,
    )
    return figure
