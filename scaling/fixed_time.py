"""A backend whose batches take a known time: `python -m service --backends scaling/fixed_time.py`.

So two cores can show what routing and batching do over several servers.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

from pipeline.backends.interface import Backend, InstanceConfig, Item
from pipeline.backends.registry import register
from pipeline.keys import TASK_DATA_KEY, TASK_RESULT_KEY
from pipeline.language.settings import Setting, read_count, read_milliseconds


@register("FixedTime")
class FixedTime(Backend):
    """Hands data on after `batch_ms` and `image_ms` for each image of the batch."""

    settings: ClassVar[tuple[Setting, ...]] = (
        Setting("largest", read_count, "a whole number of at least 1", 1),
        Setting("batch_ms", read_milliseconds, "milliseconds, at least 0", 0.0),
        Setting("image_ms", read_milliseconds, "milliseconds, at least 0", 0.0),
    )

    def init(self, config: InstanceConfig) -> None:
        """Read the times."""
        self.max = int(config.settings["largest"])
        self._batch_s = config.settings["batch_ms"] / 1000
        self._image_s = config.settings["image_ms"] / 1000

    def forward(self, items: Sequence[Item]) -> None:
        """Sleep once for the whole batch."""
        time.sleep(self._batch_s + len(items) * self._image_s)
        for item in items:
            item[TASK_RESULT_KEY] = item[TASK_DATA_KEY]
