"""Whether the chunks of a PNG are as long as they say (ISO/IEC 15948, 5.3).

OpenCV takes memory for a chunk by its announced length before it reads it: a file of 41 bytes could
ask for 2 GB.
"""

from __future__ import annotations

from struct import Struct

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LENGTH_AND_KIND = Struct(">I4s")
_CHECKSUM_BYTES = 4
# A writer's usual chunk has 8 KiB. Walking so many takes some 20 ms.
_MOST_CHUNKS = 65_536


def false_chunk(data: bytes | memoryview) -> str:
    """What is wrong with the chunks of a PNG, up to its end chunk; "" if nothing is.

    Args:
        data: the encoded image; one that is no PNG has nothing wrong.
    """
    position, end = len(PNG_SIGNATURE), len(data)
    if data[:position] != PNG_SIGNATURE:
        return ""
    for _ in range(_MOST_CHUNKS):
        if position + _LENGTH_AND_KIND.size > end:
            return "it ends before its last chunk"
        length, kind = _LENGTH_AND_KIND.unpack_from(data, position)
        position += _LENGTH_AND_KIND.size + length + _CHECKSUM_BYTES
        if position > end:
            return f"a chunk {kind!r} of {length} bytes is announced, and the file ends before that"
        if kind == b"IEND":
            return ""
    return f"it has more than {_MOST_CHUNKS} chunks"
