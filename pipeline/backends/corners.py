"""The corners of a part of an image: those of the node, or those that an item brings."""

from __future__ import annotations

from collections.abc import Mapping
from operator import index
from typing import Any

from pipeline.backends.interface import InstanceConfig, Item
from pipeline.errors import PipelineConfigError
from pipeline.keys import TASK_BOX_KEY
from pipeline.language.settings import Setting, read_size

# Where an item may bring x1, y1, x2, y2: torchpipe's names for it, of its older and of its newer
# versions.
BOX_KEYS = (TASK_BOX_KEY, "BOX")
_CORNERS = ("x1", "y1", "x2", "y2")
CORNER_SETTINGS = tuple(
    Setting(
        name,
        read_size,
        "pixels, at least 0",
        help="a corner; an item may bring its own",
        unit="pixels",
    )
    for name in _CORNERS
)


def node_corners(config: InstanceConfig, operator: str) -> Mapping[str, int | None]:
    """The corners that the node gives, by name; None where it gives none.

    Raises:
        PipelineConfigError: they have no pixel between them.
    """
    corners = {name: config.settings[name] for name in _CORNERS}
    for low, high in (("x1", "x2"), ("y1", "y2")):
        start, end = corners[low], corners[high]
        if start is not None and end is not None and start >= end:
            raise PipelineConfigError(
                f"{operator} needs {low} < {high}, got {low} = {start} and {high} = {end}"
            )
    return corners


def part_of(
    item: Item, corners: Mapping[str, int | None], size: tuple[int, int], operator: str
) -> tuple[slice, slice]:
    """The rows and the columns of an item's part.

    Args:
        item: may bring all four corners in this order under `_box` or `BOX`, or single ones under
            their names. What stands behind them in a box, such as a score, is not read.
        corners: the node's.
        size: height and width of the image in pixels.
        operator: whose part it is, for the message.

    Raises:
        TypeError: a corner is no whole number.
        ValueError: a corner is missing, or the part does not lie within the image.
    """
    x1, y1, x2, y2 = _corners_of(item, corners, operator)
    height, width = size
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise ValueError(
            f"the part ({x1}, {y1}) to ({x2}, {y2}) does not lie within {width} x {height}"
        )
    return slice(y1, y2), slice(x1, x2)


def _corners_of(item: Item, corners: Mapping[str, int | None], operator: str) -> list[int]:
    for key in BOX_KEYS:
        if key in item:
            return _whole_numbers(key, item[key])
    own = [item.get(name, corners[name]) for name in _CORNERS]
    if missing := [name for name, value in zip(_CORNERS, own, strict=True) if value is None]:
        raise ValueError(
            f"{operator} needs {', '.join(missing)}, in the node or in the item, "
            f"or all four corners in the item's {' or '.join(BOX_KEYS)}"
        )
    return _whole_numbers(", ".join(_CORNERS), own)


def _whole_numbers(where: str, corners: Any) -> list[int]:
    try:
        numbers = [index(corner) for corner in list(corners)[:4]]
    except TypeError as error:
        raise TypeError(f"{where} = {corners!r}: expected four whole numbers of pixels") from error
    if len(numbers) < 4:
        raise ValueError(f"{where} = {corners!r}: expected x1, y1, x2, y2")
    return numbers
