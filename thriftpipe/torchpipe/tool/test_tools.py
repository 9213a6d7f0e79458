"""torchpipe v0's `torchpipe.tool.test_tools`, under the names that `utils.test` replaced."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from interfaces.image_formats import JPEG_SUFFIXES
from thriftpipe.torchpipe.utils import test as load_test


def test_from_raw_jpg(
    forward_function: load_test.Forward | Sequence[load_test.Forward],
    img_dir: str | os.PathLike[str],
    request_client: int = 10,
    request_batch: int = 1,
    total_number: int = 10_000,
    pid: int = 0,
    extra_post: Sequence[str] = (),
) -> dict[str, Any]:
    """`utils.test.test_from_raw_file`; `total_number` = -1 sends every image once.

    Args:
        forward_function: as there.
        img_dir: a folder of images.
        request_client: how many threads call side by side.
        request_batch: images of a call.
        total_number: images of all calls together, or -1.
        pid: the CPU time is that of this process, whatever this says.
        extra_post: what names of further images end in.
    """
    del pid
    return load_test.test_from_raw_file(
        forward_function,
        img_dir,
        request_client,
        request_batch,
        total_number,
        num_preload=999 if total_number > 0 else 0,
        ext=(*JPEG_SUFFIXES, *extra_post),
    )
