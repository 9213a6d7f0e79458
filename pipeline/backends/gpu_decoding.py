"""Decoding of JPEGs on the GPU, by its decoding engine where the chip has one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from pipeline.backends.buffer_pool import BufferPool
from pipeline.backends.cpu_operator import COLOR_SETTING
from pipeline.backends.gpu import GpuOperator, in_color, to_gpu
from pipeline.backends.gpu_image import DecodedImage
from pipeline.backends.interface import InstanceConfig, Item, fail
from pipeline.backends.registry import register
from pipeline.errors import PipelineConfigError
from pipeline.keys import TASK_COLOR_KEY, TASK_DATA_KEY, TASK_RESULT_KEY
from pipeline.language.settings import Setting
from service.handlers.outcomes import ImageFailure
from service.images.decoding import decode_bgr
from service.images.jpeg import read_jpeg_header

logger = logging.getLogger(__name__)


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
        try:
            from nvidia import nvimgcodec
        except ImportError as error:
            raise PipelineConfigError(
                "DecodeTensor needs the package nvidia-nvimgcodec-cu13; install it with: "
                "pip install 'thriftpipe[gpu]'"
            ) from error
        self._decoder_lock = config.decoder_lock
        self._deadline_s = config.deadline_s
        self._codec = nvimgcodec
        self._color = config.settings["color"]
        formats = nvimgcodec.SampleFormat
        self._parameters = nvimgcodec.DecodeParams(
            sample_format=formats.I_RGB if self._color == "rgb" else formats.I_BGR
        )
        self._decoder = _decoder(nvimgcodec, config.device_id)
        self._stream = torch.cuda.current_stream(self._device).cuda_stream
        # The decoder may read them after `decode` has returned.
        self._encoded: list[Any] = []
        # Decoded into again and again: taking memory on the GPU, and giving it back, waits for all
        # that runs there.
        self._memory = BufferPool[Any]()

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
            stream = self._code_stream(data)
            if stream is None:
                self._decode_on_cpu(item)
            else:
                batch.append(item)
                encoded.append(stream)
        if not batch:
            return
        for item, image in zip(batch, self._decode(encoded), strict=True):
            if image is None:
                self._decode_on_cpu(item)
                continue
            item[TASK_COLOR_KEY] = self._color
            item[TASK_RESULT_KEY] = DecodedImage(self._memory.lend(image))

    def _decode(self, encoded: list[Any]) -> list[Any]:
        """The images, or None for each that the decoder cannot decode."""
        self._encoded = encoded
        try:
            images: list[Any] = self._decoder.decode(
                encoded,
                images=self._memory.take(len(encoded)),
                params=self._parameters,
                cuda_stream=self._stream,
            )
        except RuntimeError as error:
            logger.warning("nvImageCodec failed, decoding on the CPU instead: %s", error)
            return [None] * len(encoded)
        return images

    def process(self, item: Item) -> torch.Tensor:
        """Decode one image on the CPU; an InvalidImageError fails the item."""
        return to_gpu(
            in_color(decode_bgr(item[TASK_DATA_KEY], self._deadline_s(item)), self._color),
            self._device,
        )

    def end_pass(self) -> None:
        """Decode into the memory of images that are gone."""
        self._memory.end_pass()

    def close(self) -> None:
        """Free the decoder."""
        self._encoded = []
        self._memory.clear()
        del self._decoder

    def _code_stream(self, data: Any) -> Any:
        """What the decoder takes, or None for what the CPU has to decode."""
        if not isinstance(data, bytes | memoryview):
            return None
        header = read_jpeg_header(data)
        if header is None or not (header.baseline and header.complete):
            return None
        if header.components not in (1, 3):
            return None
        try:
            return self._codec.CodeStream(np.frombuffer(data, np.uint8))
        except RuntimeError:
            return None

    def _decode_on_cpu(self, item: Item) -> None:
        try:
            item[TASK_RESULT_KEY] = self.process(item)
            item[TASK_COLOR_KEY] = self._color
        except ImageFailure as failure:
            fail(item, failure)


def _decoder(nvimgcodec: Any, device_id: int) -> Any:
    """A decoder that uses the JPEG engine, or CUDA kernels on a chip that has none."""
    kinds = nvimgcodec.BackendKind
    for kind in (kinds.HW_GPU_ONLY, kinds.HYBRID_CPU_GPU):
        try:
            return nvimgcodec.Decoder(
                device_id=device_id, max_num_cpu_threads=1, backends=[nvimgcodec.Backend(kind)]
            )
        except RuntimeError as error:
            failure = error
    raise PipelineConfigError(f"nvImageCodec cannot decode JPEGs on GPU {device_id}: {failure}")
