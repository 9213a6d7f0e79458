"""The plot of stage times: a bar a variant, made of the parts of its requests' mean latency."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from loadtest.report.stage_summary import KINDS
from loadtest.report.style import PALETTE, picture

_COLOURS = dict(zip(KINDS, (*PALETTE[:5], "#999999", PALETTE[5]), strict=True))
# Narrower parts of a bar have no room for their number, as a share of the longest bar.
_LEAST_LABELLED_SHARE = 0.05


def draw(folder: Path, name: str, title: str, variants: Mapping[str, Mapping[str, float]]) -> str:
    """Write the plot.

    Args:
        folder: where to.
        name: beginning of the file name.
        title: of the plot.
        variants: name to kind of stage to mean in ms, as `by_kind` gives it; at least one.

    Returns:
        The file's name.
    """
    return picture(folder, f"{name}-stages.png", lambda: _bars(title, variants))


def _bars(title: str, variants: Mapping[str, Mapping[str, float]]) -> Figure:
    longest_ms = max(sum(kinds.values()) for kinds in variants.values())
    figure = Figure(figsize=(10, 1.7 + 0.6 * len(variants)), layout="constrained")
    axes = figure.subplots()
    labelled: set[str] = set()
    for position, kinds in enumerate(variants.values()):
        left_ms = 0.0
        for kind, mean_ms in kinds.items():
            label = None if kind in labelled else kind
            labelled.add(kind)
            axes.barh(position, mean_ms, 0.6, left=left_ms, color=_COLOURS[kind], label=label)
            if mean_ms >= _LEAST_LABELLED_SHARE * longest_ms:
                middle = (left_ms + mean_ms / 2, position)
                text = f"{mean_ms:.1f}"
                axes.annotate(text, middle, ha="center", va="center", color="white", fontsize=9)
            left_ms += mean_ms
    axes.set_yticks(range(len(variants)), list(variants))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("mean latency at the client, in ms")
    axes.set_title(f"{title}: where the time of a request goes", fontsize=11)
    handles, names = axes.get_legend_handles_labels()
    in_order = sorted(zip(names, handles, strict=True), key=lambda pair: KINDS.index(pair[0]))
    figure.legend(
        [handle for _, handle in in_order],
        [name for name, _ in in_order],
        loc="outside lower center",
        ncols=len(in_order),
    )
    return figure
