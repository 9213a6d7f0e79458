"""Shared memory in which one process leaves an item, and another one its result.

A slot holds one item on its way: first what is to be worked on, then, in the same place, what came
of it. Which of the two, and when, the processes tell each other by slot numbers on a socket.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from array import array
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from pipeline.backend import Item
from pipeline.engine_process.semaphore import SEMAPHORE_BYTES, Semaphore
from pipeline.errors import DeadlinePassedError, NodeError
from pipeline.keys import (
    TASK_COLOR_KEY,
    TASK_DATA_KEY,
    TASK_REQUEST_SIZE_KEY,
    TASK_RESULT_KEY,
)
from service.handler import InvalidImageError

# Kind of the data, whether a thread waits for the outcome at the slot itself, length of the
# description and of the data in bytes, when the item was left here, and its deadline (0 for none),
# both in seconds on the clock that all processes share.
_HEADER = struct.Struct("<B?xxIQdd")
_KEPT_KEYS = (TASK_COLOR_KEY, TASK_REQUEST_SIZE_KEY)
# Behind the header: on which a thread may wait for the outcome.
_SEMAPHORE_OFFSET = 32
_TEXT_OFFSET = _SEMAPHORE_OFFSET + SEMAPHORE_BYTES
_LINE_BYTES = 64
_BYTES, _TENSOR, _DONE, _FAILED, _STATUS = range(5)
_MOST_STATUS_BYTES = 2048
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
        self._semaphores = [
            Semaphore(self._map, start + _SEMAPHORE_OFFSET)
            for start in range(0, count * slot_bytes, slot_bytes)
        ]

    @classmethod
    def create(cls, count: int, slot_bytes: int) -> SlotMemory:
        """New memory, which a descriptor passed to another process shares."""
        fd = os.memfd_create("thriftpipe-slots", os.MFD_CLOEXEC)
        os.ftruncate(fd, count * slot_bytes)
        memory = cls(fd, count, slot_bytes)
        for slot in range(count):
            memory.semaphore(slot).initialise()
        return memory

    def semaphore(self, slot: int) -> Semaphore:
        """The slot's own, on which a thread may wait for the outcome."""
        return self._semaphores[slot]

    def put_item(
        self,
        slot: int,
        item: Item,
        now_s: float,
        deadline_s: float | None,
        *,
        is_waited_for: bool = False,
    ) -> None:
        """Leave an item's data: the bytes of an image, or a tensor on the host.

        Args:
            slot: where.
            item: the item.
            now_s: the time.
            deadline_s: its deadline; None for none.
            is_waited_for: whether a thread waits at the slot's semaphore for the outcome.

        Raises:
            SlotError: the data is something else, or larger than a slot.
        """
        data = item[TASK_DATA_KEY]
        # The keys that count there, besides the data; None for those that the item lacks.
        keys = tuple(item.get(key) for key in _KEPT_KEYS)
        if isinstance(data, torch.Tensor):
            matrix, order = _as_array(data)
            text = _tensor_description(matrix.dtype.str, matrix.shape, order, keys)
            kind, body = _TENSOR, _bytes_of(matrix)
        elif isinstance(data, bytes | bytearray | memoryview):
            text = _bytes_description(keys)
            kind, body = _BYTES, memoryview(data).cast("B")
        else:
            raise SlotError(
                f"the engine process takes bytes or a tensor, got {type(data).__name__}"
            )
        self._write(slot, kind, text, [body], now_s, deadline_s or 0.0, is_waited_for=is_waited_for)

    def is_waited_for(self, slot: int) -> bool:
        """Whether a thread waits at the semaphore for what comes of the item in the slot."""
        return bool(_HEADER.unpack_from(self._memory, slot * self.slot_bytes)[1])

    def item(self, slot: int) -> tuple[Item, float, float | None]:
        """The item in a slot, when it was left there, and its deadline.

        Its data, a memoryview or a tensor, is a view of the slot: it is whole until the result is
        put there.
        """
        kind, about, body, put_at_s, deadline_s = self._read(slot)
        item: Item = {TASK_DATA_KEY: body}
        if kind == _TENSOR:
            matrix = np.frombuffer(body, np.dtype(about["dtype"])).reshape(about["shape"])
            item[TASK_DATA_KEY] = torch.from_numpy(
                matrix.transpose(0, 3, 1, 2) if about["order"] == "nhwc" else matrix
            )
        for key, value in zip(_KEPT_KEYS, about["keys"], strict=True):
            if value is not None:
                item[key] = value
        return item, put_at_s, deadline_s or None

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
        times = memoryview(array("d", times_ms.values())).cast("B")
        if error is None:
            arrays = [np.ascontiguousarray(one.cpu().numpy()) for one in results]
            kinds = tuple((one.dtype.str, one.shape) for one in arrays)
            text = _outcome_description(tuple(times_ms), kinds, isinstance(result, list))
            try:
                self._write(slot, _DONE, text, [times, *map(_bytes_of, arrays)])
            except SlotError as too_large:
                error = too_large
        if error is not None:
            cause = error.cause if isinstance(error, NodeError) else error
            about = {
                "times": list(times_ms),
                "node": error.node if isinstance(error, NodeError) else None,
                "cause": type(cause).__name__,
                "message": str(cause),
            }
            self._write(slot, _FAILED, json.dumps(about).encode(), [times])

    def outcome(self, slot: int) -> tuple[Any, NodeError | None, dict[str, float]]:
        """What came of the item: result, or the error that says why there is none, and times."""
        kind, about, body, *_ = self._read(slot)
        times = np.frombuffer(body, np.float64, len(about["times"]))
        times_ms = dict(zip(about["times"], times.tolist(), strict=True))
        if kind == _FAILED:
            cause = _CAUSES.get(about["cause"], RemoteError)(about["message"])
            return None, NodeError(about["node"] or "engine process", cause), times_ms
        results, start = [], times.nbytes
        for dtype, shape in about["arrays"]:
            count = int(np.prod(shape))
            view = np.frombuffer(body, np.dtype(dtype), count, start)
            results.append(torch.from_numpy(view.reshape(shape).copy()))
            start += view.nbytes
        return results if about["several"] else results[0], None, times_ms

    def put_status(self, slot: int, text: str) -> None:
        """Leave a short text in a slot that holds no items."""
        self._write(slot, _STATUS, text.encode()[:_MOST_STATUS_BYTES], [])

    def status(self, slot: int) -> str:
        """The text in such a slot. While it is being replaced it may be a mixture of both."""
        start = slot * self.slot_bytes
        text_bytes = min(_HEADER.unpack_from(self._memory, start)[2], _MOST_STATUS_BYTES)
        text_start = start + _TEXT_OFFSET
        return str(self._memory[text_start : text_start + text_bytes], "utf-8", "replace")

    def close(self) -> None:
        """Unmap the memory, unless views of it are still in use; free it with the last process."""
        os.close(self.fd)
        self._semaphores.clear()
        self._memory.release()
        try:
            self._map.close()
        except BufferError:
            # A tensor of an item that is still being worked on, or a thread that waits; the map
            # goes with it.
            return

    def _write(
        self,
        slot: int,
        kind: int,
        text: bytes,
        parts: Sequence[memoryview],
        put_at_s: float = 0.0,
        deadline_s: float = 0.0,
        *,
        is_waited_for: bool = False,
    ) -> None:
        start = slot * self.slot_bytes
        text_start = start + _TEXT_OFFSET
        position = _body_start(text_start, len(text))
        size_bytes = sum(part.nbytes for part in parts)
        if position + size_bytes > start + self.slot_bytes:
            raise SlotError(
                f"an item of {size_bytes} bytes does not fit into a slot of {self.slot_bytes}"
            )
        for part in parts:
            self._memory[position : position + part.nbytes] = part
            position += part.nbytes
        self._memory[text_start : text_start + len(text)] = text
        _HEADER.pack_into(
            self._memory, start, kind, is_waited_for, len(text), size_bytes, put_at_s, deadline_s
        )

    def _read(self, slot: int) -> tuple[int, dict[str, Any], memoryview, float, float]:
        start = slot * self.slot_bytes
        header = _HEADER.unpack_from(self._memory, start)
        kind, _, text_bytes, body_bytes, put_at_s, deadline_s = header
        text_start = start + _TEXT_OFFSET
        about = _parsed(bytes(self._memory[text_start : text_start + text_bytes]))
        position = _body_start(text_start, text_bytes)
        return kind, about, self._memory[position : position + body_bytes], put_at_s, deadline_s


def _body_start(text_start: int, text_bytes: int) -> int:
    """Where the data begins: at a whole cache line, so that arrays are aligned."""
    return text_start + -(-text_bytes // _LINE_BYTES) * _LINE_BYTES


# Items of one server describe themselves in the same few ways, so that descriptions, whatever
# there is to say, cost nothing after the first ones.
@lru_cache(maxsize=256)
def _parsed(text: bytes) -> dict[str, Any]:
    about: dict[str, Any] = json.loads(text)
    return about


@lru_cache(maxsize=256)
def _bytes_description(keys: tuple[Any, ...]) -> bytes:
    return json.dumps({"keys": keys}).encode()


@lru_cache(maxsize=256)
def _tensor_description(
    dtype: str, shape: tuple[int, ...], order: str, keys: tuple[Any, ...]
) -> bytes:
    about = {"dtype": dtype, "shape": shape, "order": order, "keys": keys}
    return json.dumps(about).encode()


@lru_cache(maxsize=256)
def _outcome_description(
    times: tuple[str, ...], arrays: tuple[tuple[str, tuple[int, ...]], ...], several: bool
) -> bytes:
    return json.dumps({"times": times, "arrays": arrays, "several": several}).encode()


def _bytes_of(array: np.ndarray[Any, Any]) -> memoryview:
    """The bytes of an array that is contiguous."""
    return array.reshape(-1).view(np.uint8).data


def _as_array(tensor: torch.Tensor) -> tuple[np.ndarray[Any, Any], str]:
    """A tensor's values in the order in which they lie in memory, and what that order is."""
    if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor.numpy().transpose(0, 2, 3, 1), "nhwc"
    return np.ascontiguousarray(tensor.cpu().numpy()), "plain"
