"""A backend that hands on what it gets."""

from __future__ import annotations

from typing import Any

from pipeline.backends.interface import ItemBackend
from pipeline.backends.registry import register


@register("Identity", "Empty", "Identities")
class Identity(ItemBackend):
    """The result is the data itself, not a copy."""

    any_thread = True

    def process(self, data: Any) -> Any:
        """The data."""
        return data
