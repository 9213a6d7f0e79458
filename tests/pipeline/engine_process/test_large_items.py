"""The largest image and the largest tensor that reach the engine process, by --max-frame-bytes."""

from __future__ import annotations

import mmap
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from idl import inference
from pipeline.engine_process.slots import SlotLimits, SlotMemory
from service.handlers.outcomes import InvalidImageError
from service.handlers.warm_up import sample_jpeg
from tests.robustness.colour_model import SIDE, write_colour_model
from tests.serving import connect, service

MIB = 1024 * 1024
CROP = f"""
from pipeline import register_backend


@register_backend(name="Crop")
class Crop:
    def forward(self, items):
        for item in items:
            item["result"] = item["data"][:, :, :{SIDE}, :{SIDE}]
"""
COMMON = ("--handler", "pipeline", "--engine", "onnxruntime", "--workers", "2")


def pipeline_file(folder: Path, nodes: str) -> str:
    config = folder / "pipeline.toml"
    model = write_colour_model(folder).model
    config.write_text(f'shared_engine = "always"\n{nodes}\nmodel = "{model}"\n')
    return str(config)


def classify(port: int, image: bytes) -> Any:
    with closing(connect(port)) as client:
        (result,) = client.infer_images([inference.InferenceParams("u", image)], None)
        return result


def green(side: int) -> bytes:
    """A square PNG, which is small whatever its size."""
    pixels = np.full((side, side, 3), (0, 200, 0), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def test_an_image_as_large_as_a_message_reaches_the_engine_process(tmp_path: Path) -> None:
    """One node decodes and infers there; the image is larger than 32 MiB."""
    config = pipeline_file(
        tmp_path,
        f"resize_h = {SIDE}\nresize_w = {SIDE}\n[colours]\n"
        'backend = "S[DecodeMat,ResizeMat,cvtColorMat,Mat2Tensor,TensorrtTensor]"',
    )
    limits = ("--max-frame-bytes", str(48 * MIB), "--max-buffered-bytes", str(256 * MIB))
    with service(*COMMON, "--config", config, *limits) as (port, _):
        image = sample_jpeg()
        result = classify(port, image + bytes(48 * MIB - len(image) - 1024))
        assert result.error is None
        assert result.label


def test_pixels_are_larger_than_the_message_that_they_came_in(tmp_path: Path) -> None:
    """The worker decodes, and hands the pixels to the engine process as a tensor."""
    backends = tmp_path / "backends.py"
    backends.write_text(CROP)
    config = pipeline_file(
        tmp_path,
        '[decode]\nbackend = "S[DecodeMat,cvtColorMat,Mat2Tensor]"\nnext = "colours"\n'
        '[colours]\nbackend = "S[Crop,TensorrtTensor]"',
    )
    limits = ("--backends", str(backends), "--max-frame-bytes", str(MIB // 16))
    with service(*COMMON, "--config", config, *limits) as (port, _):
        # 197 kB and 39 MB of pixels, in at most 64 KiB of message.
        fits, is_too_large = classify(port, green(256)), classify(port, green(3600))
        assert (fits.error, fits.label) == (None, classify(port, green(SIDE)).label)
        assert is_too_large.error.code == inference.ErrorCode.INVALID_IMAGE
        assert is_too_large.error.message == (
            "the image takes 38880000 bytes on its way to the engine process, where 33554432 are "
            "allowed; send a smaller one, or start the server with --max-frame-bytes 38880000"
        )


@pytest.mark.parametrize(("frame_bytes", "allowed_bytes"), [(1, 32 * MIB), (33 * MIB, 33 * MIB)])
def test_a_slot_holds_a_message_and_some_pixels(frame_bytes: int, allowed_bytes: int) -> None:
    memory = SlotMemory.create(1, SlotLimits(frame_bytes).slot_bytes)
    memory.put_item(0, {"data": bytes(allowed_bytes), "color": "rgb", "request_size": 1}, 0.0, None)
    with pytest.raises(InvalidImageError, match="--max-frame-bytes"):
        memory.put_item(0, {"data": bytes(allowed_bytes + mmap.PAGESIZE)}, 0.0, None)
    memory.close()
