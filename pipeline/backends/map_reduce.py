"""The backend that stands for a `pipeline.runtime.map_reduce.MapReduceNode` in a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pipeline.backends.interface import Backend, InstanceConfig, Item
from pipeline.backends.registry import register
from pipeline.errors import PipelineConfigError
from pipeline.keys import TASK_DATA_KEY, TASK_RESULT_KEY
from pipeline.language.settings import REQUIRED, Setting, read_text

MAP_REDUCE = "MapReduce"


@register(MAP_REDUCE)
class MapReduce(Backend):
    """Sends the elements of a list through other nodes; has no instances.

    `jump` names the node where the elements enter, `split` the item's key that has them, and
    `merge` the key that gets their results.
    """

    settings: ClassVar[tuple[Setting, ...]] = (
        Setting("jump", read_text, "the node where the elements enter", REQUIRED),
        Setting("split", read_text, "a key of the item", TASK_DATA_KEY),
        Setting("merge", read_text, "a key of the item", TASK_RESULT_KEY),
    )

    def init(self, config: InstanceConfig) -> None:  # noqa: ARG002 (it takes none)
        """Refuse to be a part of something else."""
        raise PipelineConfigError(f"{MAP_REDUCE} is a node by itself: backend = {MAP_REDUCE!r}")

    def forward(self, items: Sequence[Item]) -> None:
        """Never called."""
