"""What the image operators on the CPU have in common, and settings that those for GPUs share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import cv2
import numpy as np

from engine.cpu.cores import fitting_contexts
from interfaces.kinds import MOST_SIDE
from pipeline.backends.interface import Backend, InstanceConfig, Item
from pipeline.errors import PipelineConfigError
from pipeline.keys import TASK_DATA_KEY, TASK_RESULT_KEY
from pipeline.language.settings import Setting, choice, read_side

RESIZE_SETTINGS = (
    Setting(
        "resize_h",
        read_side,
        f"a height in pixels, 1 to {MOST_SIDE}",
        help="the height of the result",
        unit="pixels",
        example=224,
    ),
    Setting(
        "resize_w",
        read_side,
        f"a width in pixels, 1 to {MOST_SIDE}",
        help="the width of the result",
        unit="pixels",
        example=224,
    ),
)
COLOR_SETTING = Setting(
    "color", choice("rgb", "bgr"), '"rgb" or "bgr"', "rgb", help="the order of the channels"
)


class CpuOperator(Backend):
    """An operator that keeps one core busy: instances are its parallelism."""

    can_break = False
    any_thread = True

    @classmethod
    def fitting_instance_num(
        cls,
        instance_num: int,
        settings: Mapping[str, Any],  # noqa: ARG003 (the same for all)
        engine: str,  # noqa: ARG003
    ) -> int:
        """One instance a core at most: more would take turns on the cores."""
        return fitting_contexts(instance_num)

    def init(self, config: InstanceConfig) -> None:  # noqa: ARG002 (for those with settings)
        """Keep OpenCV from starting threads of its own beside the instances'."""
        cv2.setNumThreads(1)

    def forward(self, items: Sequence[Item]) -> None:
        """Process the items one after the other."""
        for item in items:
            item[TASK_RESULT_KEY] = self.process(item)

    @abstractmethod
    def process(self, item: Item) -> Any:
        """The result for one item; an exception fails it."""


def is_plain_operator(backend: Backend) -> TypeGuard[CpuOperator]:
    """Whether `process` is all that it does with an item, and what fails is the item's fault."""
    return (
        isinstance(backend, CpuOperator)
        and type(backend).forward is CpuOperator.forward
        and not backend.can_break
    )


def needed(config: InstanceConfig, operator: str, *names: str) -> tuple[Any, ...]:
    """The values of settings that the node, or the expression, must give.

    Args:
        config: the instance.
        operator: whose settings they are, for the message.
        names: theirs.

    Raises:
        PipelineConfigError: one of them is missing.
    """
    values = tuple(config.settings[name] for name in names)
    if None in values:
        raise PipelineConfigError(f"{operator} needs {' and '.join(names)}")
    return values


def needed_size(config: InstanceConfig, operator: str, height: str, width: str) -> tuple[int, int]:
    """Height and width in pixels, under these names; raises as `needed`."""
    try:
        rows, columns = needed(config, operator, height, width)
    except PipelineConfigError as error:
        raise PipelineConfigError(f"{error}, in pixels") from None
    return rows, columns


def size_of_item(
    item: Item, operator: str, height: str = "resize_h", width: str = "resize_w"
) -> tuple[int, int]:
    """Height and width in pixels that the item names under these keys.

    Raises:
        ValueError: it does not.
    """
    given = {key: item.get(key) for key in (height, width)}
    # What a detector's box gives.
    plain = [value.item() if isinstance(value, np.integer) else value for value in given.values()]
    try:
        rows, columns = map(read_side, plain)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{operator} needs {height} and {width} in the item, pixels from 1 to {MOST_SIDE}, "
            f"got {given}"
        ) from error
    return rows, columns


def byte_matrix(item: Item) -> np.ndarray[Any, Any]:
    """An item's matrix: uint8 of shape (height, width, 3).

    Raises:
        TypeError: its data is no array.
        ValueError: the array has another type or shape.
    """
    return _matrix(item, (np.uint8,))


def matrix(item: Item) -> np.ndarray[Any, Any]:
    """An item's matrix: uint8 or float32 of shape (height, width, 3); raises as `byte_matrix`."""
    return _matrix(item, (np.uint8, np.float32))


def _matrix(item: Item, dtypes: tuple[type, ...]) -> np.ndarray[Any, Any]:
    data = item[TASK_DATA_KEY]
    if not isinstance(data, np.ndarray):
        raise TypeError(f"expected a matrix, such as DecodeMat gives, got {type(data).__name__}")
    if data.dtype not in dtypes or data.ndim != 3 or data.shape[2] != 3 or data.size == 0:
        raise ValueError(
            f"expected a matrix of {' or '.join(dtype.__name__ for dtype in dtypes)} and of shape "
            f"(height, width, 3), got {data.dtype} {data.shape}"
        )
    return data
