"""Interleaved windows: every part on every side, repeat by repeat."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


class MeasuredSide(Protocol):
    """What runs windows."""

    name: str

    def run(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a window's request."""


@dataclass(frozen=True)
class Part:
    """What is measured, on both sides alike.

    Attributes:
        name: how the raw data calls it.
        request: of its window, as `side_process.Side.run` takes it.
        warm_up: what of the request is otherwise in the window that is not kept.
        by_side: what of the request is otherwise for a side, by the side's name.
    """

    name: str
    request: Mapping[str, Any]
    warm_up: Mapping[str, Any]
    by_side: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def request_for(self, side: str) -> dict[str, Any]:
        """The request for a side."""
        return {**self.request, **self.by_side.get(side, {})}


def measure(
    parts: Sequence[Part],
    sides: Sequence[MeasuredSide],
    repeats: int,
    progress: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Run all windows: the sides take turns at each part, and every other repeat in reverse order.

    Args:
        parts: what is measured.
        sides: who is measured.
        repeats: windows of each part and side.
        progress: gets a line before each repeat.

    Returns:
        A dictionary a window: `part`, `side`, `repeat` (from 0) and what the window returned.

    Raises:
        MeasureError: a window cannot be measured.
    """
    progress("warming up")
    for part in parts:
        for side in sides:
            side.run({**part.request_for(side.name), **part.warm_up})
    windows = []
    for repeat in range(repeats):
        progress(f"repeat {repeat + 1} of {repeats}")
        for part in parts:
            for side in sides if repeat % 2 == 0 else reversed(sides):
                result = side.run(part.request_for(side.name))
                windows.append({"part": part.name, "side": side.name, "repeat": repeat, **result})
    return windows
