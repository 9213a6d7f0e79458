"""Decodes batches of JPEGs by nvImageCodec's C interface, into memory that is used again."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from ctypes import byref, c_size_t, c_uint32, pointer, sizeof
from ctypes import c_void_p as handle
from typing import Any

import numpy as np
import torch

from pipeline.backends.nvimgcodec_library import Function, Library, NvImageCodecError
from pipeline.backends.nvimgcodec_structures import (
    Backend,
    BackendParams,
    DecodeParams,
    ExecutionParams,
    ImageInfo,
    Orientation,
    PlaneInfo,
)

CPU_ONLY, HYBRID_CPU_GPU, HW_GPU_ONLY = 1, 3, 4
"""What may decode: nvimgcodecBackendKind_t."""

# From nvimgcodec.h.
_DEVICE_CPU_ONLY = -99999
_BUFFER_KIND_STRIDED_DEVICE, _BUFFER_KIND_STRIDED_HOST = 1, 2
_COLORSPEC_SRGB = 1
_LOAD_HINT_POLICY_FIXED = 2
_PROCESSING_STATUS_SUCCESS = 1
_SAMPLE_DATA_TYPE_UINT8 = 0x0802
_SAMPLE_FORMATS = {"rgb": 8, "bgr": 10}

# Memory is taken in such steps, so that it is enough for later images of about that size.
_STEP_BYTES = 512 * 2**10


class Block:
    """Memory for an image, and where its pixels lie: three bytes each, without gaps.

    Attributes:
        address: where the first pixel lies.
        height: in pixels.
        width: in pixels.
    """

    __slots__ = ("_memory", "address", "height", "width")

    def __init__(self) -> None:
        self._memory: torch.Tensor | None = None
        self.address = self.height = self.width = 0

    @property
    def size_bytes(self) -> int:
        """What there is room for."""
        return 0 if self._memory is None else self._memory.numel()

    def make_room(self, height: int, width: int, device: torch.device) -> None:
        """Have memory for an image of so many pixels; what was there before is lost."""
        needed_bytes = 3 * height * width
        if self._memory is None or self.size_bytes < needed_bytes:
            self._memory = None
            steps = -(-needed_bytes // _STEP_BYTES)
            self._memory = torch.empty(steps * _STEP_BYTES, dtype=torch.uint8, device=device)
            self.address = self._memory.data_ptr()
        self.height, self.width = height, width

    def tensor(self) -> torch.Tensor:
        """The image, of shape (height, width, 3), in this memory."""
        assert self._memory is not None  # noqa: S101 (an image was decoded into it)
        pixels = self._memory[: 3 * self.height * self.width]
        return pixels.view(self.height, self.width, 3)


class _Handles:
    """Handles side by side, as the library takes them; what each stands for is used again."""

    def __init__(self, destroy: Function) -> None:
        self.array: Any = (handle * 0)()
        self.addresses: list[Any] = []
        self._destroy = destroy

    def make_room(self, count: int) -> None:
        if count > len(self.addresses):
            self.array = (handle * count)(*self.array)
            self.addresses = [byref(self.array, sizeof(handle) * place) for place in range(count)]

    def close(self) -> None:
        with ExitStack() as stack:
            for each in filter(None, self.array):
                stack.callback(self._destroy, each)


class BatchDecoder:
    """Decodes batches of JPEGs; one thread makes it, calls it and closes it.

    On a GPU decoding is enqueued on the stream that is the thread's current one when the decoder is
    made; what follows there sees the pixels.

    Args:
        library: the process's.
        device: the GPU, or the CPU with `CPU_ONLY`.
        kind: what may decode.
        color: "rgb" or "bgr".

    Raises:
        NvImageCodecError: the device has no such decoder.
    """

    def __init__(self, library: Library, device: torch.device, kind: int, color: str) -> None:
        on_gpu = device.type == "cuda"
        self._device = device
        self._instance = library.instance
        functions = library.functions
        self._create_stream = functions["CodeStreamCreateFromHostMem"]
        self._get_info = functions["CodeStreamGetImageInfo"]
        self._create_image = functions["ImageCreate"]
        self._decode = functions["DecoderDecode"]
        self._wait = functions["FutureWaitForAll"]
        self._get_statuses = functions["FutureGetProcessingStatus"]
        self._destroy_future = functions["FutureDestroy"]
        self._destroy_decoder = functions["DecoderDestroy"]
        self._params = DecodeParams(apply_exif_orientation=1)
        # What a code stream says of its image, and what we want. Each look at a structure within a
        # structure makes an object, so they are looked up once.
        self._seen = ImageInfo()
        self._seen_plane = self._seen.plane_info[0]
        self._seen_orientation = self._seen.orientation
        self._wanted = ImageInfo(
            color_spec=_COLORSPEC_SRGB,
            sample_format=_SAMPLE_FORMATS[color],
            orientation=Orientation(),
            num_planes=1,
            buffer_kind=_BUFFER_KIND_STRIDED_DEVICE if on_gpu else _BUFFER_KIND_STRIDED_HOST,
            cuda_stream=torch.cuda.current_stream(device).cuda_stream if on_gpu else None,
        )
        self._wanted.plane_info[0] = PlaneInfo(num_channels=3, sample_type=_SAMPLE_DATA_TYPE_UINT8)
        self._wanted_plane = self._wanted.plane_info[0]
        self._wanted_orientation = self._wanted.orientation
        self._streams = _Handles(functions["CodeStreamDestroy"])
        self._images = _Handles(functions["ImageDestroy"])
        # The decoder may read them after `decode` has returned.
        self._encoded: list[Any] = []
        load = BackendParams(load_hint=1.0, load_hint_policy=_LOAD_HINT_POLICY_FIXED)
        execution = ExecutionParams(
            # The calling thread does all of the host's work, so that waiting for it takes no time.
            max_num_cpu_threads=1,
            device_id=device.index if on_gpu else _DEVICE_CPU_ONLY,
            num_backends=1,
            backends=pointer(Backend(kind=kind, params=load)),
        )
        self._decoder = handle()
        functions["DecoderCreate"](self._instance, byref(self._decoder), byref(execution), None)

    def decode(self, encoded: Sequence[bytes | memoryview], blocks: Sequence[Block]) -> list[bool]:
        """Decode a batch.

        Args:
            encoded: JPEGs.
            blocks: one for each, where its image goes.

        Returns:
            Whether each is decoded.

        Raises:
            NvImageCodecError: nothing was decoded.
            torch.OutOfMemoryError: there is no memory for the images; nothing was decoded.
        """
        self._streams.make_room(len(encoded))
        self._images.make_room(len(encoded))
        described: list[int] = []
        for index, (data, block) in enumerate(zip(encoded, blocks, strict=True)):
            if self._describe(len(described), data, block):
                described.append(index)
        decoded = [False] * len(encoded)
        if described:
            for index, status in zip(described, self._run(len(described)), strict=True):
                decoded[index] = status == _PROCESSING_STATUS_SUCCESS
        return decoded

    def _describe(self, place: int, data: bytes | memoryview, block: Block) -> bool:
        """Say what to decode at that place of the batch, and where to; False if it is no image."""
        address: Any = data
        if not isinstance(data, bytes):
            seen = np.frombuffer(data, np.uint8)
            address = seen.__array_interface__["data"][0]
            self._encoded.append(seen)
        self._encoded.append(data)
        try:
            stream_address = self._streams.addresses[place]
            self._create_stream(self._instance, stream_address, address, len(data), None)
            self._get_info(self._streams.array[place], byref(self._seen))
            self._want(block)
            self._create_image(self._instance, self._images.addresses[place], byref(self._wanted))
        except NvImageCodecError:
            return False
        return True

    def _want(self, block: Block) -> None:
        """Ask for the image that was seen, upright, in that memory."""
        seen, turned = self._seen_plane, self._seen_orientation
        wanted, orientation = self._wanted_plane, self._wanted_orientation
        height, width, rotated = seen.height, seen.width, turned.rotated
        orientation.rotated, orientation.flip_x = rotated, turned.flip_x
        orientation.flip_y = turned.flip_y
        if rotated % 180:
            height, width = width, height
        block.make_room(height, width, self._device)
        wanted.height, wanted.width, wanted.row_stride = height, width, 3 * width
        self._wanted.buffer = block.address

    def _run(self, count: int) -> list[int]:
        """Decode what is described: the nvimgcodecProcessingStatus_t of each."""
        future = handle()
        self._decode(
            *(self._decoder, self._streams.array, self._images.array, count),
            *(byref(self._params), byref(future)),
        )
        try:
            self._wait(future)
            statuses = (c_uint32 * count)()
            self._get_statuses(future, statuses, byref(c_size_t(count)))
        finally:
            self._destroy_future(future)
        return list(statuses)

    def end_pass(self) -> None:
        """Let the encoded images go; the stream has done all that was enqueued."""
        self._encoded.clear()

    def close(self) -> None:
        """Free everything; no decoding is outstanding."""
        self._encoded.clear()
        with ExitStack() as stack:
            stack.callback(self._destroy_decoder, self._decoder)
            stack.callback(self._images.close)
            stack.callback(self._streams.close)
