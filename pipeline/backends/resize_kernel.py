"""Bilinear resizing of a whole batch of images of any sizes in one launch, in Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

# Output pixels of one program.
_BLOCK_PIXELS = 256


@triton.jit  # type: ignore[untyped-decorator]
def _resize_bilinear(  # type: ignore[no-untyped-def]  # Triton reads annotations as types
    table, out, height: tl.constexpr, width: tl.constexpr, block: tl.constexpr
):
    image = tl.program_id(0)
    pixel = tl.program_id(1) * block + tl.arange(0, block)
    inside = pixel < height * width
    source = tl.load(table + image * 4).to(tl.pointer_type(tl.uint8))
    rows = tl.load(table + image * 4 + 1).to(tl.int32)
    columns = tl.load(table + image * 4 + 2).to(tl.int32)
    pitch = tl.load(table + image * 4 + 3)
    # Pixel centres at half coordinates and edges repeated, as cv2.INTER_LINEAR has it.
    y = ((pixel // width).to(tl.float32) + 0.5) * (rows.to(tl.float32) / height) - 0.5
    x = ((pixel % width).to(tl.float32) + 0.5) * (columns.to(tl.float32) / width) - 0.5
    y = tl.minimum(tl.maximum(y, 0.0), (rows - 1).to(tl.float32))
    x = tl.minimum(tl.maximum(x, 0.0), (columns - 1).to(tl.float32))
    top, left = y.to(tl.int32), x.to(tl.int32)
    down, right = y - top.to(tl.float32), x - left.to(tl.float32)
    upper = source + top.to(tl.int64) * pitch
    lower = source + tl.minimum(top + 1, rows - 1).to(tl.int64) * pitch
    next_left = tl.minimum(left + 1, columns - 1)
    target = out + (image * height * width + pixel).to(tl.int64) * 3
    for channel in tl.static_range(3):
        a = tl.load(upper + left * 3 + channel, mask=inside, other=0).to(tl.float32)
        b = tl.load(upper + next_left * 3 + channel, mask=inside, other=0).to(tl.float32)
        c = tl.load(lower + left * 3 + channel, mask=inside, other=0).to(tl.float32)
        d = tl.load(lower + next_left * 3 + channel, mask=inside, other=0).to(tl.float32)
        above, below = a + (b - a) * right, c + (d - c) * right
        value = above + (below - above) * down
        tl.store(target + channel, (value + 0.5).to(tl.uint8), mask=inside)


def resize_bilinear(table: torch.Tensor, out: torch.Tensor) -> None:
    """Resize images on the current stream, to within 1 of what cv2.resize gives.

    Args:
        table: int64 of shape (images, 4) on the GPU, the fields of `Pixels` of each image.
        out: uint8 of shape (images, 3, height, width) in the memory order channels_last.
    """
    images, _, height, width = out.shape
    grid = (images, triton.cdiv(height * width, _BLOCK_PIXELS))
    _resize_bilinear[grid](table, out, height, width, _BLOCK_PIXELS)
