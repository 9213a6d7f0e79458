"""The arguments of infer_images for the hop, in pieces: images stay where they are."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from thriftpy2.protocol import TCyBinaryProtocol
from thriftpy2.thrift import TType
from thriftpy2.transport import TCyMemoryBuffer

# The library's annotations cover its pure Python twin only.
_BinaryProtocol: Any = TCyBinaryProtocol

_FIELD = struct.Struct(">bh")
_LENGTH = struct.Struct(">I")
_STOP = b"\x00"
# Fields of infer_images, and of InferenceParams.
_REQUESTS = _FIELD.pack(TType.LIST, 1) + bytes([TType.STRUCT])
_CALLS = _REQUESTS
_OPTIONS = _FIELD.pack(TType.STRUCT, 2)
_UUID, _DATA = _FIELD.pack(TType.STRING, 1), _FIELD.pack(TType.STRING, 2)


def requests_in_pieces(requests: Sequence[Any]) -> list[bytes]:
    """The field with a list of InferenceParams; each image is a piece of its own, and no copy."""
    pieces: list[bytes] = []
    before = _REQUESTS + _LENGTH.pack(len(requests))
    for request in requests:
        uuid, data = _as_bytes(request.uuid), _as_bytes(request.data)
        sizes = _LENGTH.pack(len(uuid)), _LENGTH.pack(len(data))
        pieces.append(b"".join((before, _UUID, sizes[0], uuid, _DATA, sizes[1])))
        pieces.append(data)
        before = _STOP
    pieces.append(before)
    return pieces


def options_piece(options: Any) -> bytes:
    """The field with InferOptions, and the end of the arguments."""
    buffer = TCyMemoryBuffer()
    _BinaryProtocol(buffer).write_struct(options)
    encoded: bytes = buffer.getvalue()
    return _OPTIONS + encoded + _STOP


def gathered(calls: Sequence[Sequence[bytes]]) -> list[bytes]:
    """The arguments of `cluster.gathered_method`: those of several calls, each in pieces."""
    pieces = [_CALLS + _LENGTH.pack(len(calls))]
    for call in calls:
        pieces += call
    pieces.append(_STOP)
    return pieces


def _as_bytes(string: str | bytes) -> bytes:
    # thriftpy2 gives a string that is no text as bytes, and binary that is text as text.
    return string.encode() if isinstance(string, str) else string
