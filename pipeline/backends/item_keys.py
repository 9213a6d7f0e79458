"""Backends that change an item's keys, or how many rows it counts for, and hand on its data."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch

from pipeline.backends.cpu_operator import CpuOperator, needed
from pipeline.backends.interface import InstanceConfig, Item
from pipeline.backends.registry import register
from pipeline.errors import PipelineConfigError
from pipeline.keys import TASK_DATA_KEY, TASK_REQUEST_SIZE_KEY, TASK_RESULT_KEY
from pipeline.language.settings import Setting, read_names, read_text, whole_number

_MOST_COPIES = 1024


class KeyBackend(CpuOperator):
    """Changes an item; its result is its data."""

    def process(self, item: Item) -> Any:
        """The data, once the keys are changed."""
        self.change(item)
        return item[TASK_DATA_KEY]

    @abstractmethod
    def change(self, item: Item) -> None:
        """Change the item; an exception fails it."""


@register("KeyA2KeyB")
class KeyA2KeyB(KeyBackend):
    """Copies what an item has under `key_a` to `key_b`.

    With `key_a = "data"`, behind another backend of a sequence, `key_b` keeps that one's result.
    """

    settings: ClassVar[tuple[Setting, ...]] = (
        Setting("key_a", read_text, "a key of the item", help="what is copied", example="data"),
        Setting("key_b", read_text, "a key of the item", help="where it goes", example="kept"),
    )

    def init(self, config: InstanceConfig) -> None:
        """Read both keys; refuse those between which nothing can be copied."""
        super().init(config)
        self._from, self._to = needed(config, "KeyA2KeyB", "key_a", "key_b")
        if self._from == TASK_RESULT_KEY:
            raise PipelineConfigError(
                f'KeyA2KeyB: key_a = "{TASK_RESULT_KEY}" is not there yet; behind the backend that '
                f'gives the result it is key_a = "{TASK_DATA_KEY}"'
            )
        if self._to in (TASK_DATA_KEY, TASK_RESULT_KEY):
            raise PipelineConfigError(
                f'KeyA2KeyB: key_b = "{self._to}" would be replaced at once: the result of this '
                "backend is its data. A node's map renames keys on the way to it"
            )

    def change(self, item: Item) -> None:
        """Copy the value."""
        if self._from not in item:
            raise LookupError(f"KeyA2KeyB: the item has no key {self._from!r}")
        item[self._to] = item[self._from]


@register("RemoveV0")
class RemoveV0(KeyBackend):
    """Takes the keys that `remove` names out of the item; one that it lacks is no error."""

    settings: ClassVar[tuple[Setting, ...]] = (
        Setting(
            "remove",
            read_names,
            "keys of the item with commas between them",
            help="what is taken away",
            example="color",
        ),
    )

    def init(self, config: InstanceConfig) -> None:
        """Read the keys; refuse those without which no item goes on."""
        super().init(config)
        self._keys: tuple[str, ...]
        (self._keys,) = needed(config, "RemoveV0", "remove")
        for key in self._keys:
            if key in (TASK_DATA_KEY, TASK_RESULT_KEY):
                raise PipelineConfigError(f'RemoveV0: "{key}" cannot be removed')

    def change(self, item: Item) -> None:
        """Remove them."""
        for key in self._keys:
            item.pop(key, None)


@register("CopySplit")
class CopySplit(KeyBackend):
    """Makes a list of `split_size` times the same data, for a MapReduce to send somewhere."""

    settings: ClassVar[tuple[Setting, ...]] = (
        Setting(
            "split_size",
            whole_number(1, _MOST_COPIES),
            f"a whole number from 1 to {_MOST_COPIES}",
            1,
            help="how many times the data",
        ),
    )

    def init(self, config: InstanceConfig) -> None:
        """Read the number."""
        super().init(config)
        self._split_size: int = config.settings["split_size"]

    def change(self, item: Item) -> None:
        """Make the list."""
        item[TASK_DATA_KEY] = [item[TASK_DATA_KEY]] * self._split_size


@register("SetTensorRequestSize", "CalTorchBatchSize")
class SetTensorRequestSize(KeyBackend):
    """Sets `request_size` to the rows of the tensor: for so many it counts in the nodes behind."""

    def change(self, item: Item) -> None:
        """Read the first dimension, of the first tensor if there are several."""
        data: Any = item[TASK_DATA_KEY]
        first = data[0] if isinstance(data, list | tuple) and data else data
        if not isinstance(first, torch.Tensor | np.ndarray):
            raise TypeError(
                f"SetTensorRequestSize takes a tensor or a list of them, got {type(first).__name__}"
            )
        if not first.ndim or not first.shape[0]:
            raise ValueError(
                f"SetTensorRequestSize takes at least one row, got the shape {tuple(first.shape)}"
            )
        item[TASK_REQUEST_SIZE_KEY] = int(first.shape[0])
