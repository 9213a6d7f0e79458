"""Decoding of JPEGs on the GPU, by its decoding engine where the chip has one."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from pipeline.backends.batch_decoder import HW_GPU_ONLY, HYBRID_CPU_GPU, BatchDecoder, Block
from pipeline.backends.buffer_pool import BufferPool
from pipeline.backends.cpu_operator import COLOR_SETTING
from pipeline.backends.gpu import GpuOperator, in_color, to_gpu
from pipeline.backends.gpu_image import DecodedImage
from pipeline.backends.interface import InstanceConfig, Item, fail
from pipeline.backends.nvimgcodec_library import Library, NvImageCodecError, why_unusable
from pipeline.backends.registry import register
from pipeline.errors import PipelineConfigError
from pipeline.keys import TASK_COLOR_KEY, TASK_DATA_KEY, TASK_RESULT_KEY
from pipeline.language.settings import Setting
from service.handlers.outcomes import ImageFailure
from service.images.decoding import decode_bgr
from service.images.jpeg import read_jpeg_header

logger = logging.getLogger(__name__)

# Of an image of 5 million pixels. More is given back after the pass, so that large images do not
# leave each place of the largest batch with memory for one.
_MOST_KEPT_BYTES = 16 * 2**20


@register("DecodeTensor")
class DecodeTensor(GpuOperator):
    """Encoded bytes in, an image on the GPU out, a whole batch at once.

    nvImageCodec decodes baseline JPEGs, with the chip's JPEG engine where it has one. What that
    engine refuses (progressive and CMYK JPEGs, PNG), and what looks damaged, goes through the
    CPU's decoder, which is also the one that says why an image is none: a truncated JPEG is
    refused, and not filled up with grey. `color` names the order of the channels.

    Within a sequence the result is a `DecodedImage`, and no tensor yet.
    """

    cpu_counterpart: ClassVar[str] = "DecodeMat"
    locks_decoder: ClassVar[bool] = True
    settings: ClassVar[tuple[Setting, ...]] = (COLOR_SETTING,)

    def init(self, config: InstanceConfig) -> None:
        """Start a decoder of this instance's own."""
        super().init(config)
        self._decoder_lock = config.decoder_lock
        self._deadline_s = config.deadline_s
        self._color = config.settings["color"]
        self._decoder = _decoder(self._device, self._color)
        # Decoded into again and again: taking memory on the GPU, and giving it back, waits for all
        # that runs there.
        self._memory = BufferPool[Block](keeps=lambda block: block.size_bytes <= _MOST_KEPT_BYTES)

    def forward(self, items: Sequence[Item]) -> None:
        """Decode what the engine takes in one call, and the rest on the CPU."""
        try:
            self._decode_batch(items)
        finally:
            if self._decoder_lock is not None:
                self._decoder_lock.release()

    def _decode_batch(self, items: Sequence[Item]) -> None:
        batch, encoded = [], []
        for item in items:
            data = item[TASK_DATA_KEY]
            if _decodable(data):
                batch.append(item)
                encoded.append(data)
            else:
                self._decode_on_cpu(item)
        if not batch:
            return
        for item, image in zip(batch, self._decode(encoded), strict=True):
            if image is None:
                self._decode_on_cpu(item)
                continue
            item[TASK_COLOR_KEY] = self._color
            item[TASK_RESULT_KEY] = image

    def _decode(self, encoded: list[bytes | memoryview]) -> list[DecodedImage | None]:
        """The images, or None for each that the decoder cannot decode."""
        blocks = self._memory.take(len(encoded)) or [Block() for _ in encoded]
        try:
            decoded = self._decoder.decode(encoded, blocks)
        except RuntimeError as error:
            logger.warning("nvImageCodec failed, decoding on the CPU instead: %s", error)
            return [None] * len(encoded)
        # Also what was written in vain: its memory is free when the pass is over.
        loans = [self._memory.lend(block) for block in blocks]
        return [
            DecodedImage(loan) if is_there else None
            for loan, is_there in zip(loans, decoded, strict=True)
        ]

    def process(self, item: Item) -> torch.Tensor:
        """Decode one image on the CPU; an InvalidImageError fails the item."""
        return to_gpu(
            in_color(decode_bgr(item[TASK_DATA_KEY], self._deadline_s(item)), self._color),
            self._device,
        )

    def end_pass(self) -> None:
        """Decode into the memory of images that are gone; let encoded ones go."""
        self._decoder.end_pass()
        self._memory.end_pass()

    def close(self) -> None:
        """Free the decoder."""
        self._memory.clear()
        self._decoder.close()

    def _decode_on_cpu(self, item: Item) -> None:
        try:
            item[TASK_RESULT_KEY] = self.process(item)
            item[TASK_COLOR_KEY] = self._color
        except ImageFailure as failure:
            fail(item, failure)


def _decodable(data: Any) -> bool:
    """Whether a JPEG engine may take it, as its header says."""
    if not isinstance(data, bytes | memoryview):
        return False
    header = read_jpeg_header(data)
    if header is None or not (header.baseline and header.complete):
        return False
    return header.components in (1, 3)


_library_lock = threading.Lock()


@functools.cache
def _library() -> Library:
    """That of this process; the caller has the lock."""
    if why := why_unusable():
        raise PipelineConfigError(f"DecodeTensor cannot run: {why}")
    return Library()


def _decoder(device: torch.device, color: str) -> BatchDecoder:
    """A decoder that uses the JPEG engine, or CUDA kernels on a chip that has none."""
    try:
        with _library_lock:
            library = _library()
        try:
            return BatchDecoder(library, device, HW_GPU_ONLY, color)
        except NvImageCodecError as reason:
            decoder = BatchDecoder(library, device, HYBRID_CPU_GPU, color)
            logger.warning(
                "GPU %s decodes by CUDA kernels and not by a JPEG engine (%s); a CPU of many "
                "cores may be faster: --decode cpu",
                *(device.index, reason),
            )
            return decoder
    except (NvImageCodecError, OSError) as error:
        raise PipelineConfigError(
            f"nvImageCodec cannot decode JPEGs on GPU {device.index}: {error}; "
            "--decode cpu decodes them on the CPU"
        ) from error
