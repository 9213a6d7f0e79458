"""How large a variant's batches were and why they left, from its servers' own counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from interfaces.markdown import Table
from interfaces.stats import LEAVE_REASONS
from loadtest.records.metrics import NOT_AVAILABLE, number, percent
from loadtest.records.node_counts import NodeCounts
from loadtest.report.summary import Row
from loadtest.report.tables import Columns, table
from loadtest.servers.variants import BASELINE, CONTROL, is_pipeline


@dataclass(frozen=True)
class NodeBatches:
    """The batches of a node in all windows of a variant.

    Attributes:
        variant: its name.
        node: the node's name.
        by_size: images in a batch to how many batches.
        by_reason: why a batch left to how many batches.
    """

    variant: str
    node: str
    by_size: Counter[int] = field(default_factory=Counter)
    by_reason: Counter[str] = field(default_factory=Counter)

    @property
    def batches(self) -> int:
        """How many there were."""
        return self.by_size.total()

    @property
    def images(self) -> int:
        """How many images they had together."""
        return sum(size * count for size, count in self.by_size.items())

    @property
    def mean_size(self) -> float | None:
        """Images in a batch."""
        return self.images / self.batches if self.batches else None

    @property
    def shares_by_size(self) -> Mapping[int, float]:
        """Size to the share of images that were in such batches."""
        return {
            size: size * count / self.images for size, count in sorted(self.by_size.items()) if size
        }


def node_batches(rows: Sequence[Row]) -> list[NodeBatches]:
    """A row a node that had batches, in the order of variants and nodes."""
    found: dict[tuple[str, str], NodeBatches] = {}
    for row in rows:
        for window in row.windows:
            for name, counts in NodeCounts.of_window(window).items():
                own = found.setdefault((row.name, name), NodeBatches(row.name, name))
                own.by_size.update(counts.batches_by_size)
                own.by_reason.update(counts.batches_by_reason)
    return [node for node in found.values() if node.batches]


def batch_table(nodes: Sequence[NodeBatches]) -> Table:
    """Sizes of batches, and the reasons for which they left."""
    columns: Columns[NodeBatches] = (
        ("Variant", lambda node: node.variant),
        ("node", lambda node: node.node),
        ("batches", lambda node: str(node.batches)),
        ("mean size", lambda node: number(node.mean_size, 2)),
        ("largest", lambda node: str(max(node.by_size))),
        *((f"left: {reason}", _share_of(reason)) for reason in LEAVE_REASONS),
    )
    return table(columns, nodes)


def _share_of(reason: str) -> Callable[[NodeBatches], str]:
    def cell(node: NodeBatches) -> str:
        total = node.by_reason.total()
        return percent(100 * node.by_reason[reason] / total) if total else NOT_AVAILABLE

    return cell


def batch_remarks(rows: Sequence[Row], nodes: Sequence[NodeBatches]) -> Iterator[str]:
    """Where batching is off, or never came about, or was not recorded."""
    if any(row.base in {BASELINE, CONTROL} for row in rows):
        yield (
            f"`{BASELINE}` runs the images of a request by themselves: it never has images of "
            "several requests in one batch."
        )
    for row in rows:
        if not is_pipeline(row.name):
            continue
        own = [node for node in nodes if node.variant == row.name]
        if not row.batches:
            yield (
                f"Batching is off in `{row.name}`: its engine takes one image at a time "
                "(max_batch_size=1), so its gain cannot come from batches."
            )
        elif not own:
            yield f"`{row.name}`: its server did not tell how large its batches were."
        elif max(max(node.by_size) for node in own) == 1:
            yield (
                f"`{row.name}` may have batches of several images, but none came about: every "
                "image ran alone."
            )
