"""Engines that raise at random or take their time: `--backends` of the chaos run's servers.

A TOML file chains one of them before the engine: `backend = "S[Flaky,TensorrtTensor]"`.
"""

from __future__ import annotations

import random
import time
from typing import Any

from pipeline import register_backend

SPARED_CALLS = 20
"""The first calls of a flaky instance succeed, so that the server's warm-up does."""


def _hand_on(items: list[dict[str, Any]]) -> None:
    for item in items:
        item["result"] = item["data"]


@register_backend(name="Flaky", keys=["probability"])
class Flaky:
    """Hands its item on, or raises with `probability`."""

    def init(self, config: dict[str, Any]) -> None:
        """Before the first item."""
        self._probability = float(config["probability"])
        self._random = random.Random()  # noqa: S311 (guards no secret)
        self._calls = 0

    def forward(self, items: list[dict[str, Any]]) -> None:
        """Set each item's result to its data.

        Raises:
            RuntimeError: at random.
        """
        self._calls += 1
        if self._calls > SPARED_CALLS and self._random.random() < self._probability:
            raise RuntimeError("the flaky engine failed on purpose")
        _hand_on(items)


@register_backend(name="Paced", keys=["item_ms"])
class Paced:
    """Hands its items on, `item_ms` for each: a capacity that no machine decides."""

    def init(self, config: dict[str, Any]) -> None:
        """Before the first item."""
        self._item_s = float(config["item_ms"]) / 1000

    def max(self) -> int:
        """As the engine behind it."""
        return 4

    def forward(self, items: list[dict[str, Any]]) -> None:
        """Set each item's result to its data."""
        time.sleep(self._item_s * len(items))
        _hand_on(items)
