"""An engine that raises at random: `--backends` of the chaos run's servers.

The probability stands in the environment variable FLAKY_PROBABILITY. A TOML file chains it before
the engine: `backend = "S[Flaky,TensorrtTensor]"`.
"""

from __future__ import annotations

import os
import random
from typing import Any

from pipeline import register_backend

PROBABILITY = float(os.environ.get("FLAKY_PROBABILITY", "0.05"))


@register_backend(name="Flaky")
class Flaky:
    """Hands its item on, or raises."""

    def __init__(self) -> None:
        self._random = random.Random()  # noqa: S311 (guards no secret)

    def forward(self, items: list[dict[str, Any]]) -> None:
        """Set each item's result to its data.

        Raises:
            RuntimeError: at random.
        """
        if self._random.random() < PROBABILITY:
            raise RuntimeError("the flaky engine failed on purpose")
        for item in items:
            item["result"] = item["data"]
