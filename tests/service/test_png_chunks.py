"""Real PNGs, and what is left of them after damage."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from service.png_chunks import false_chunk

PNG = cv2.imencode(".png", np.arange(300, dtype=np.uint8).reshape(10, 10, 3))[1].tobytes()


def test_nothing_is_wrong_with_a_png_or_with_what_follows_it() -> None:
    assert false_chunk(PNG) == ""
    assert false_chunk(memoryview(PNG)) == ""
    assert false_chunk(PNG + b"more") == ""


@pytest.mark.parametrize("data", [b"", b"\x89PNG", b"\xff\xd8\xff"])
def test_other_files_are_not_judged(data: bytes) -> None:
    assert false_chunk(data) == ""


def test_every_png_that_is_cut_short_is_found() -> None:
    for end in range(8, len(PNG)):
        assert "the file ends before that" in false_chunk(PNG[:end]) or "it ends before" in (
            false_chunk(PNG[:end])
        )


def test_a_walk_has_an_end() -> None:
    empty = bytes(4) + b"tEXt" + bytes(4)
    assert false_chunk(PNG[:8] + empty * 70_000) == "it has more than 65536 chunks"
