"""An item that a node has given a result for, with which a doubtful instance is tried.

Three batches in a row without a result may be the fault of what they held, all from one caller. The
item that tells is the first one that worked, which in a server is a warm-up image.
"""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch

from pipeline.backends.interface import Item
from pipeline.keys import TASK_DATA_KEY

logger = logging.getLogger(__name__)

# It is kept for as long as the node; warm-up images are far smaller.
_MAX_BYTES = 64 * 2**20


class ProvenItem:
    """The item of one node, for all of its instances.

    Attributes:
        is_wanted: whether there is none yet, and the node's items can be copied.
    """

    def __init__(self) -> None:
        self._item: Item | None = None
        self.is_wanted = True

    def candidate(self, item: Item) -> Item | None:
        """A copy of an item that is about to run; None, once and for all, if it is too large."""
        copied = None
        if getattr(item[TASK_DATA_KEY], "nbytes", 0) <= _MAX_BYTES:
            copied = _copy(item)
        self.is_wanted = copied is not None
        return copied

    def keep(self, candidate: Item) -> None:
        """Keep a candidate, which has given a result."""
        self._item, self.is_wanted = candidate, False

    def get(self) -> Item | None:
        """The item, to be run; None where there is none."""
        return None if self._item is None else _copy(self._item)


def _copy(item: Item) -> Item | None:
    """An item that shares no memory with the given one; None if something in it has no copy."""
    try:
        return {key: _copied(value) for key, value in item.items()}
    except Exception as error:  # noqa: BLE001 (whatever callers and backends put there)
        logger.debug("an item cannot be copied: %r", error)
        return None


def _copied(value: Any) -> Any:
    # A deep copy of a tensor would have all of its storage, such as that of a whole batch.
    return value.detach().clone() if isinstance(value, torch.Tensor) else copy.deepcopy(value)
