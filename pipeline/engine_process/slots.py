"""Shared memory in which one process leaves an item, and another one its result.

A slot holds one item on its way: first what is to be worked on, then, in the same place, what came
of it. Which of the two, and when, the processes tell each other by slot numbers on a socket.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from typing import Any

import numpy as np
import torch

from pipeline.backend import Item
from pipeline.errors import DeadlinePassedError, NodeError
from pipeline.keys import TASK_COLOR_KEY, TASK_DATA_KEY, TASK_RESULT_KEY
from service.handler import InvalidImageError

# Kind of the data, deadline (0 for none), length of the description and of the data in bytes.
_HEADER = struct.Struct("<BxxxdIQ")
_BODY_OFFSET = 64
_BYTES, _TENSOR, _DONE, _FAILED = range(4)
# By name, so that the handler tells the client the same as without another process.
_CAUSES: dict[str, type[Exception]] = {
    cause.__name__: cause for cause in (InvalidImageError, DeadlinePassedError)
}


class SlotError(Exception):
    """An item that cannot be handed to another process."""


class RemoteError(Exception):
    """What failed in the other process, in its words."""


class SlotMemory:
    """Slots in memory that two processes map.

    The memory is taken when it is first written to, so that large slots cost nothing until a large
    item comes.

    Args:
        fd: descriptor of the memory; it is closed with the object.
        count: number of slots.
        slot_bytes: size of each, with its header.
    """

    def __init__(self, fd: int, count: int, slot_bytes: int) -> None:
        self.fd = fd
        self.count = count
        self.slot_bytes = slot_bytes
        try:
            self._map = mmap.mmap(fd, count * slot_bytes)
        except BaseException:
            os.close(fd)
            raise
        self._memory = memoryview(self._map)

    @classmethod
    def create(cls, count: int, slot_bytes: int) -> SlotMemory:
        """New memory, which a descriptor passed to another process shares."""
        fd = os.memfd_create("thriftpipe-slots", os.MFD_CLOEXEC)
        os.ftruncate(fd, count * slot_bytes)
        return cls(fd, count, slot_bytes)

    def put_item(self, slot: int, item: Item, deadline_s: float | None) -> None:
        """Leave an item's data: the bytes of an image, or a tensor on the host.

        Raises:
            SlotError: the data is something else, or larger than a slot.
        """
        data = item[TASK_DATA_KEY]
        if isinstance(data, torch.Tensor):
            array, order = _as_array(data)
            about = {"dtype": array.dtype.str, "shape": array.shape, "order": order}
            kind, body = _TENSOR, _bytes_of(array)
        elif isinstance(data, bytes | bytearray | memoryview):
            about, kind, body = {}, _BYTES, memoryview(data).cast("B")
        else:
            raise SlotError(
                f"the engine process takes bytes or a tensor, got {type(data).__name__}"
            )
        if TASK_COLOR_KEY in item:
            about[TASK_COLOR_KEY] = item[TASK_COLOR_KEY]
        self._write(slot, kind, deadline_s or 0.0, about, body)

    def item(self, slot: int) -> tuple[Item, float | None]:
        """The item in a slot, and its deadline on the monotonic clock, which all processes share.

        A tensor is a view of the slot: it is whole until the result is put there.
        """
        kind, deadline_s, about, body = self._read(slot)
        item: Item = {name: about[name] for name in (TASK_COLOR_KEY,) if name in about}
        if kind == _BYTES:
            item[TASK_DATA_KEY] = bytes(body)
        else:
            array = np.frombuffer(body, np.dtype(about["dtype"])).reshape(about["shape"])
            item[TASK_DATA_KEY] = torch.from_numpy(
                array.transpose(0, 3, 1, 2) if about["order"] == "nhwc" else array
            )
        return item, deadline_s or None

    def put_outcome(
        self, slot: int, item: Item, error: Exception | None, times_ms: dict[str, float]
    ) -> None:
        """Leave an item's result, or why it has none, in place of the item."""
        result = item.get(TASK_RESULT_KEY)
        results: list[Any] = result if isinstance(result, list) else [result]
        if error is None and not all(isinstance(one, torch.Tensor) for one in results):
            error = RemoteError(
                f"the engine process gave no tensor, but {type(results[0]).__name__}"
            )
        about: dict[str, Any] = {"times_ms": times_ms}
        if error is None:
            arrays = [np.ascontiguousarray(one.cpu().numpy()) for one in results]
            about["arrays"] = [(array.dtype.str, array.shape) for array in arrays]
            about["several"] = isinstance(result, list)
            body = b"".join(_bytes_of(array) for array in arrays)
            try:
                self._write(slot, _DONE, 0.0, about, memoryview(body))
            except SlotError as too_large:
                error = too_large
        if error is not None:
            cause = error.cause if isinstance(error, NodeError) else error
            about = {
                "times_ms": times_ms,
                "node": error.node if isinstance(error, NodeError) else None,
                "cause": type(cause).__name__,
                "message": str(cause),
            }
            self._write(slot, _FAILED, 0.0, about, memoryview(b""))

    def outcome(self, slot: int) -> tuple[Any, NodeError | None, dict[str, float]]:
        """What came of the item: result, or the error that says why there is none, and times."""
        kind, _, about, body = self._read(slot)
        if kind == _FAILED:
            cause = _CAUSES.get(about["cause"], RemoteError)(about["message"])
            return None, NodeError(about["node"] or "engine process", cause), about["times_ms"]
        results, start = [], 0
        for dtype, shape in about["arrays"]:
            count = int(np.prod(shape))
            view = np.frombuffer(body, np.dtype(dtype), count, start)
            results.append(torch.from_numpy(view.reshape(shape).copy()))
            start += view.nbytes
        return results if about["several"] else results[0], None, about["times_ms"]

    def close(self) -> None:
        """Unmap the memory, unless views of it are still in use; free it with the last process."""
        os.close(self.fd)
        self._memory.release()
        try:
            self._map.close()
        except BufferError:
            # A tensor of an item that is still being worked on; the map goes with it.
            return

    def _write(
        self, slot: int, kind: int, deadline_s: float, about: dict[str, Any], body: memoryview
    ) -> None:
        text = json.dumps(about).encode()
        start = slot * self.slot_bytes
        text_start = start + _BODY_OFFSET
        body_start = text_start + -(-len(text) // _BODY_OFFSET) * _BODY_OFFSET
        if body_start + body.nbytes > start + self.slot_bytes:
            raise SlotError(
                f"an item of {body.nbytes} bytes does not fit into a slot of {self.slot_bytes}"
            )
        self._memory[body_start : body_start + body.nbytes] = body
        self._memory[text_start : text_start + len(text)] = text
        _HEADER.pack_into(self._memory, start, kind, deadline_s, len(text), body.nbytes)

    def _read(self, slot: int) -> tuple[int, float, dict[str, Any], memoryview]:
        start = slot * self.slot_bytes
        kind, deadline_s, text_bytes, body_bytes = _HEADER.unpack_from(self._memory, start)
        text_start = start + _BODY_OFFSET
        body_start = text_start + -(-text_bytes // _BODY_OFFSET) * _BODY_OFFSET
        about = json.loads(bytes(self._memory[text_start : text_start + text_bytes]))
        return kind, deadline_s, about, self._memory[body_start : body_start + body_bytes]


def _bytes_of(array: np.ndarray[Any, Any]) -> memoryview:
    """The bytes of an array that is contiguous."""
    return array.reshape(-1).view(np.uint8).data


def _as_array(tensor: torch.Tensor) -> tuple[np.ndarray[Any, Any], str]:
    """A tensor's values in the order in which they lie in memory, and what that order is."""
    if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor.numpy().transpose(0, 2, 3, 1), "nhwc"
    return np.ascontiguousarray(tensor.cpu().numpy()), "plain"
