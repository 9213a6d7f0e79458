"""The method by which a front end gives a replica several calls in one message.

It is no part of the IDL, since it is nothing for clients. Its arguments are those of
`infer_images`, several times in a list. Each of these calls is answered by itself, as soon as it is
done, with the reply of `infer_images` whose sequence id is the call's place in the list. A message
of `FORGET` meanwhile names one for which nobody waits any more; it has no reply, and may come late.
"""

from __future__ import annotations

import struct

from thriftpy2.thrift import TMessageType, TPayload, TType

from idl import inference

NAME = "infer_gathered"
"""Its name on the wire."""

EACH = "infer_images"
"""The method of each call."""

MOST_CALLS = 16
"""Of one message."""

MOST_BYTES = 1024 * 1024
"""Of the arguments of all calls of one message."""

FORGET = "forget"
"""The method whose sequence id is the place of a call; it has no arguments."""

_FORGET = struct.Struct(f">II I{len(FORGET)}s Ix")
FORGET_BYTES = _FORGET.size
_LENGTH_BYTES = 4


def forget(place: int) -> bytes:
    """The framed message."""
    kind = 0x80010000 | TMessageType.CALL
    name = FORGET.encode()
    return _FORGET.pack(FORGET_BYTES - _LENGTH_BYTES, kind, len(name), name, place)


def forgotten(messages: bytes) -> list[int]:
    """The places that these name, which are whole."""
    return [place for *_, place in _FORGET.iter_unpack(messages)]


class GatheredArguments(TPayload):
    """The arguments' struct, as thriftpy2 has it."""

    _ttype = TType.STRUCT
    thrift_spec = {  # noqa: RUF012 (thriftpy2 reads it)
        1: (TType.LIST, "calls", (TType.STRUCT, inference.InferenceService.infer_images_args), True)
    }
    default_spec = [("calls", None)]  # noqa: RUF012
