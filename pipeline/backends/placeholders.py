"""Placeholders for trying a configuration: one backend is slow, one fails."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from pipeline.backends.interface import InstanceConfig, ItemBackend
from pipeline.backends.registry import register
from pipeline.language.settings import Setting, read_milliseconds


@register("Sleep")
class Sleep(ItemBackend):
    """Hands on the data after `time` ms, for each item: an instance at work.

    Other instances go on meanwhile, as they do while a model runs.
    """

    settings: ClassVar[tuple[Setting, ...]] = (
        Setting(
            "time",
            read_milliseconds,
            "milliseconds, at least 0",
            10.0,
            help="how long an item takes",
            unit="ms",
        ),
    )

    def init(self, config: InstanceConfig) -> None:
        """Read the time."""
        self._duration_s = config.settings["time"] / 1000

    def process(self, data: Any) -> Any:
        """The data, later."""
        time.sleep(self._duration_s)
        return data


@register("RuntimeError", "C10Exception")
class Failing(ItemBackend):
    """Fails every item with a RuntimeError, to see what callers make of it."""

    def process(self, data: Any) -> Any:
        """Nothing."""
        raise RuntimeError(
            f"the backend RuntimeError fails every item, here data of type {type(data).__name__}"
        )
