"""Shared memory in which one process leaves an item, and another one its result.

A slot holds one item on its way: first what is to be worked on, then, in the same place, what came
of it. Which of the two, and when, the processes tell each other by slot numbers on a socket.
"""

from __future__ import annotations

import mmap
import os
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from interfaces.error_text import in_one_line, what_it_says
from interfaces.messages import to_json
from pipeline.backends.interface import Item
from pipeline.engine_process.semaphore import SEMAPHORE_BYTES, Semaphore
from pipeline.engine_process.slot_content import (
    Content,
    EncodedImage,
    Failure,
    Results,
    TensorData,
    described,
    parsed,
)
from pipeline.engine_process.status_slot import StatusSlot
from pipeline.engine_process.tensor_bytes import as_array, as_tensor, bytes_of, is_channels_last
from pipeline.errors import DeadlinePassedError, NodeError
from pipeline.keys import (
    TASK_COLOR_KEY,
    TASK_DATA_KEY,
    TASK_REQUEST_SIZE_KEY,
    TASK_RESULT_KEY,
)
from service.handlers.handler_settings import HandlerSettings
from service.handlers.outcomes import InvalidImageError

_HEADER = struct.Struct("<BxHIQdd")
# A thread waits for the outcome at the slot itself; the other process has begun with the item; an
# engine process ended while it worked on it.
_IS_WAITED_FOR, _IS_BEGUN, _IS_SUSPECT = 1, 2, 4
_KEPT_KEYS = (TASK_COLOR_KEY, TASK_REQUEST_SIZE_KEY)
# Behind the header: on which a thread may wait for the outcome.
_SEMAPHORE_OFFSET = 32
_TEXT_OFFSET = _SEMAPHORE_OFFSET + SEMAPHORE_BYTES
_LINE_BYTES = 64
# Pixels take more than the message that they came in. Only what is used of a slot costs memory.
_LEAST_ITEM_BYTES = 32 * 1024 * 1024
_MOST_ERROR_CHARACTERS = 4096
CALLERS = 2**16
"""Callers of one worker have numbers below this."""
# By name, so that the handler tells the client the same as without another process.
_CAUSES: dict[str, type[Exception]] = {
    cause.__name__: cause for cause in (InvalidImageError, DeadlinePassedError)
}


class _Header(NamedTuple):
    """What stands before an item or an outcome.

    Attributes:
        flags: see above.
        caller: a short number of the caller.
        text_bytes: length of the description.
        body_bytes: length of the data.
        put_at_s: when the item was left here, on the clock that all processes share.
        deadline_s: on the same clock; 0 for none.
    """

    flags: int
    caller: int
    text_bytes: int
    body_bytes: int
    put_at_s: float
    deadline_s: float


class SlotError(Exception):
    """An item that cannot be handed to another process."""


class ItemTooLargeError(SlotError, InvalidImageError):
    """An item that is larger than a slot: the server's limits do not allow for such an image."""


class RemoteError(Exception):
    """What failed in the other process, in its words."""


@dataclass(frozen=True)
class SlotLimits:
    """How much memory items may take on their way to the engine process.

    Attributes:
        frame_bytes: the largest message of the service, and so the largest image.
        all_items_bytes: the most that items take together; a larger one goes alone.
    """

    frame_bytes: int = HandlerSettings().max_frame_bytes
    all_items_bytes: int = 64 * 1024 * 1024

    @property
    def slot_bytes(self) -> int:
        """Size of a slot that holds a message's image, or the pixels of an image of usual size."""
        largest_bytes = max(self.frame_bytes, _LEAST_ITEM_BYTES)
        return (-(-largest_bytes // mmap.PAGESIZE) + 1) * mmap.PAGESIZE


class SlotMemory:
    """Slots in memory that two processes map.

    The memory is taken when it is first written to, so that large slots cost nothing until a large
    item comes.

    Args:
        fd: descriptor of the memory; it is closed with the object.
        count: number of slots.
        slot_bytes: size of each, with its header; whole pages.
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
        # How far each slot has been written since its memory was given back last.
        self._used_bytes = [0] * count

    @classmethod
    def create(cls, count: int, slot_bytes: int) -> SlotMemory:
        """New memory, which a descriptor passed to another process shares."""
        fd = os.memfd_create("thriftpipe-slots", os.MFD_CLOEXEC)
        os.ftruncate(fd, count * slot_bytes)
        memory = cls(fd, count, slot_bytes)
        for slot in range(count):
            memory.semaphore(slot).initialise()
        return memory

    @property
    def _room_bytes(self) -> int:
        """How large an item may be, whatever its description takes."""
        return self.slot_bytes - mmap.PAGESIZE

    def semaphore(self, slot: int) -> Semaphore:
        """The slot's own, on which a thread may wait for the outcome."""
        return self._semaphores[slot]

    def used_bytes(self, slot: int) -> int:
        """How much memory the slot takes, as far as this process has written or read it."""
        return self._used_bytes[slot]

    def discard(self, slot: int) -> None:
        """Give the slot's memory back, but for the page of its header; the slot is free."""
        length = self.slot_bytes - mmap.PAGESIZE
        if self._used_bytes[slot] > mmap.PAGESIZE and length > 0:
            self._map.madvise(mmap.MADV_REMOVE, slot * self.slot_bytes + mmap.PAGESIZE, length)
        self._used_bytes[slot] = 0

    def put_item(
        self,
        slot: int,
        item: Item,
        now_s: float,
        deadline_s: float | None,
        *,
        is_waited_for: bool = False,
        is_suspect: bool = False,
        caller: int = 0,
    ) -> None:
        """Leave an item's data: the bytes of an image, or a tensor.

        Args:
            slot: where.
            item: the item.
            now_s: the time.
            deadline_s: its deadline; None for none.
            is_waited_for: whether a thread waits at the slot's semaphore for the outcome.
            is_suspect: whether it was at work when an engine process ended.
            caller: the number of its caller, of which a shorter one is left.

        Raises:
            SlotError: the data is something else.
            ItemTooLargeError: it does not fit into a slot.
        """
        data = item[TASK_DATA_KEY]
        # The keys that count there, besides the data; None for those that the item lacks.
        keys = tuple(item.get(key) for key in _KEPT_KEYS)
        if isinstance(data, torch.Tensor):
            channels_last = is_channels_last(data)
            array, dtype = as_array(data, channels_last=channels_last)
            text = described(TensorData, dtype, array.shape, channels_last, keys)
            body = bytes_of(array)
        elif isinstance(data, bytes | bytearray | memoryview):
            text = described(EncodedImage, keys)
            body = memoryview(data).cast("B")
        else:
            raise SlotError(
                f"the engine process takes bytes or a tensor, got {type(data).__name__}"
            )
        try:
            self._write(
                slot,
                text,
                [body],
                now_s,
                deadline_s or 0.0,
                flags=_IS_WAITED_FOR * is_waited_for | _IS_SUSPECT * is_suspect,
                caller=_short(caller),
            )
        except SlotError:
            raise ItemTooLargeError(
                f"the image takes {body.nbytes} bytes on its way to the engine process, where "
                f"{self._room_bytes} are allowed; send a smaller one, or start the server with "
                f"--max-frame-bytes {body.nbytes}"
            ) from None

    def begin(self, slot: int) -> None:
        """Note that the item is being worked on."""
        self._memory[slot * self.slot_bytes] |= _IS_BEGUN

    def is_begun(self, slot: int) -> bool:
        """Whether the other process has begun with the item in the slot."""
        return bool(self._memory[slot * self.slot_bytes] & _IS_BEGUN)

    def is_waited_for(self, slot: int) -> bool:
        """Whether a thread waits at the semaphore for what comes of the item in the slot."""
        return bool(self._memory[slot * self.slot_bytes] & _IS_WAITED_FOR)

    def is_suspect(self, slot: int) -> bool:
        """Whether the item in the slot was at work when an engine process ended."""
        return bool(self._memory[slot * self.slot_bytes] & _IS_SUSPECT)

    def caller(self, slot: int) -> int:
        """The short number, below `CALLERS`, of whose item is in the slot."""
        return self._header(slot).caller

    def item(self, slot: int) -> tuple[Item, float, float | None]:
        """The item in a slot, when it was left there, and its deadline.

        Its data, a memoryview or a tensor, is a view of the slot: it is whole until the result is
        put there.
        """
        header, content, body = self._read(slot)
        item: Item = {TASK_DATA_KEY: body}
        if isinstance(content, TensorData):
            item[TASK_DATA_KEY] = as_tensor(
                body, content.dtype, content.shape, channels_last=content.channels_last
            )
        elif not isinstance(content, EncodedImage):
            raise SlotError(f"slot {slot} holds no item, but {content}")
        for key, value in zip(_KEPT_KEYS, content.keys, strict=True):
            if value is not None:
                item[key] = value
        return item, header.put_at_s, header.deadline_s or None

    def put_outcome(
        self, slot: int, item: Item, error: Exception | None, times_ms: dict[str, float]
    ) -> None:
        """Leave an item's result, or why it has none, in place of the item.

        What cannot be handed to another process is such a reason, too.
        """
        result = item.get(TASK_RESULT_KEY)
        results: list[Any] = result if isinstance(result, list) else [result]
        if error is None and not all(isinstance(one, torch.Tensor) for one in results):
            error = RemoteError(
                f"the engine process gave no tensor, but {type(results[0]).__name__}"
            )
        times = memoryview(array("d", times_ms.values())).cast("B")
        if error is None:
            try:
                arrays = [as_array(one) for one in results]
                kinds = tuple((dtype, array.shape) for array, dtype in arrays)
                text = described(Results, tuple(times_ms), kinds, isinstance(result, list))
                self._write(slot, text, [times, *(bytes_of(array) for array, _ in arrays)])
            except Exception as cannot:  # noqa: BLE001 (sparse, quantised, too large, ...)
                error = RemoteError(f"the result cannot leave its process: {in_one_line(cannot)}")
        if error is not None:
            cause = error.cause if isinstance(error, NodeError) else error
            failure = Failure(
                times=list(times_ms),
                node=error.node if isinstance(error, NodeError) else None,
                cause=type(cause).__name__,
                message=what_it_says(cause)[:_MOST_ERROR_CHARACTERS],
            )
            self._write(slot, to_json(failure).encode(), [times])

    def outcome(self, slot: int) -> tuple[Any, NodeError | None, dict[str, float]]:
        """What came of the item: result, or the error that says why there is none, and times."""
        _, content, body = self._read(slot)
        if not isinstance(content, Results | Failure):
            raise SlotError(f"slot {slot} holds no outcome, but {content}")
        times = np.frombuffer(body, np.float64, len(content.times))
        times_ms = dict(zip(content.times, times.tolist(), strict=True))
        if isinstance(content, Failure):
            cause = _CAUSES.get(content.cause, RemoteError)(content.message)
            return None, NodeError(content.node or "engine process", cause), times_ms
        results, start = [], times.nbytes
        for dtype, shape in content.arrays:
            results.append(as_tensor(body[start:], dtype, shape, copied=True))
            start += results[-1].nbytes
        return results if content.is_list else results[0], None, times_ms

    def status_slot(self, slot: int) -> StatusSlot:
        """A slot that holds no items, but what the engine process tells."""
        return StatusSlot(self._memory, slot * self.slot_bytes, self.slot_bytes)

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
        text: bytes,
        parts: Sequence[memoryview],
        put_at_s: float = 0.0,
        deadline_s: float = 0.0,
        *,
        flags: int = 0,
        caller: int = 0,
    ) -> None:
        start = slot * self.slot_bytes
        text_start = start + _TEXT_OFFSET
        position = _body_start(text_start, len(text))
        size_bytes = sum(part.nbytes for part in parts)
        if position + size_bytes > start + self.slot_bytes:
            raise SlotError(
                f"{size_bytes} bytes do not fit into a slot of {self._room_bytes}; start the "
                f"server with --max-frame-bytes {size_bytes}"
            )
        for part in parts:
            self._memory[position : position + part.nbytes] = part
            position += part.nbytes
        self._memory[text_start : text_start + len(text)] = text
        self._used_bytes[slot] = max(self._used_bytes[slot], position - start)
        header = _Header(flags, caller, len(text), size_bytes, put_at_s, deadline_s)
        _HEADER.pack_into(self._memory, start, *header)

    def _header(self, slot: int) -> _Header:
        return _Header(*_HEADER.unpack_from(self._memory, slot * self.slot_bytes))

    def _read(self, slot: int) -> tuple[_Header, Content, memoryview]:
        start = slot * self.slot_bytes
        header = self._header(slot)
        text_start = start + _TEXT_OFFSET
        content = parsed(bytes(self._memory[text_start : text_start + header.text_bytes]))
        position = _body_start(text_start, header.text_bytes)
        end = position + header.body_bytes
        self._used_bytes[slot] = max(self._used_bytes[slot], end - start)
        return header, content, self._memory[position:end]


def data_bytes(item: Item) -> int:
    """How much memory an item's data takes in a slot; 0 for what no slot takes."""
    data = item[TASK_DATA_KEY]
    if isinstance(data, torch.Tensor):
        return data.nbytes if data.layout is torch.strided else 0
    return memoryview(data).nbytes if isinstance(data, bytes | bytearray | memoryview) else 0


def _short(caller: int) -> int:
    """A number that has room in a header. Two callers with the same one count as one."""
    # Callers are addresses that differ in some middle bits: the product's upper bits hold all.
    return ((caller >> 4) * 0x9E3779B97F4A7C15 & 2**64 - 1) >> 48


def _body_start(text_start: int, text_bytes: int) -> int:
    """Where the data begins: at a whole cache line, so that arrays are aligned."""
    return text_start + -(-text_bytes // _LINE_BYTES) * _LINE_BYTES
