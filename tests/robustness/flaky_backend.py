"""An engine that raises at random: `--backends` of the chaos run's servers.

The probability is in the environment variable FLAKY_PROBABILITY. A TOML file chains it before
the engine: `backend = "S[Flaky,TensorrtTensor]"`.
"""

from __future__ import annotations

import os
import random
from typing import Any

from pipeline import register_backend

PROBABILITY = float(os.environ.get("FLAKY_PROBABILITY", "0.05"))
SPARED_CALLS = 20
"""The first calls of an instance succeed, so that the server's warm-up does."""


@register_backend(name="Flaky")
class Flaky:
    """Hands its item on, or raises."""

    def __init__(self) -> None:
        self._random = random.Random()  # noqa: S311 (guards no secret)
        self._calls = 0

    def forward(self, items: list[dict[str, Any]]) -> None:
        """Set each item's result to its data.

        Raises:
            RuntimeError: at random.
        """
        self._calls += 1
        if self._calls > SPARED_CALLS and self._random.random() < PROBABILITY:
            raise RuntimeError("the flaky engine failed on purpose")
        for item in items:
            item["result"] = item["data"]
