"""A pipe under load in this process: what its callers see, and what each node does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.benchmark.load import Load, LoadOutcome, run_load, warm_up
from pipeline.callable_pipe import Pipe
from pipeline.image_files import Image
from pipeline.keys import TASK_DATA_KEY, TASK_ERROR_KEY, TASK_NODE_NAME_KEY
from pipeline.runtime.counts import NodeCounts


@dataclass(frozen=True)
class NodeLoad:
    """What a node of the pipe did meanwhile.

    Attributes:
        instances: how many it has, on all devices together.
        counts: of its items and batches.
    """

    instances: int
    counts: NodeCounts

    @property
    def mean_rows(self) -> float:
        """Rows of a batch, on average; 0 where none has left."""
        sizes = self.counts.batches.by_size
        return sum(rows * count for rows, count in sizes.items()) / max(1, sizes.total())

    def busy(self, wall_s: float) -> float:
        """Share of the instances' time in which they worked."""
        return self.counts.forward_ms / (1000 * wall_s * self.instances)


@dataclass(frozen=True)
class Bench:
    """What came of a pipe under load.

    Attributes:
        outcome: as its callers saw it.
        nodes: by name, in the order of the file.
    """

    outcome: LoadOutcome
    nodes: Mapping[str, NodeLoad]


def bench(pipe: Pipe, images: Sequence[Image], load: Load, node: str | None = None) -> Bench:
    """Send the load through a pipe, after a few requests that do not count.

    Args:
        pipe: it may have more than one node, and must have no other callers meanwhile.
        images: at least one.
        load: how much.
        node: where images enter; needed where several nodes could be meant.

    Raises:
        PipelineInputError: there is no such node, or several could be meant.
    """
    entry = {} if node is None else {TASK_NODE_NAME_KEY: node}
    # What is wrong with every request is told once, and not as so many failed images.
    pipe({TASK_DATA_KEY: images[0][1], **entry})

    def request(several: list[Image]) -> list[str]:
        items = [{TASK_DATA_KEY: data, **entry} for _, data in several]
        pipe(items)
        return [str(item[TASK_ERROR_KEY]) for item in items if TASK_ERROR_KEY in item]

    warm_up([request], images, load)
    before = {name: one.counts for name, one in pipe.local_nodes.items()}
    outcome = run_load([request], images, load)
    nodes = {
        name: NodeLoad(
            one.instance_num * max(1, len(one.device_ids)), one.counts.since(before[name])
        )
        for name, one in pipe.local_nodes.items()
    }
    return Bench(outcome, nodes)
