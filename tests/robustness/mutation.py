"""Mutations of bytes as AFL makes them, and some that know Thrift and image headers.

The list of AFL's operators is from its technical details (lcamtuf.coredump.cx/afl): bit flips,
interesting integers, arithmetic, overwriting, deleting, duplicating and splicing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from struct import Struct

from tests.robustness import wire

_INTERESTING = (
    *(0, 1, -1, 2, 4, 12, 13, 16, 64, 100, 127, 128, -128, 255, 256, 32_767, 32_768, -32_768),
    *(65_535, 65_536, 100_001, 2**20, 16_384_000, 16_384_001, 2**31 - 1, -(2**31)),
)
_WIRE_TYPES = (*range(17), 255)
_INTEGERS = (Struct(">B"), Struct(">H"), Struct("<H"), Struct(">I"), Struct("<I"), Struct(">Q"))
_MOST_BYTES = 48 * 1024
_HUGE = b"\xff\xff"


@dataclass(frozen=True)
class Mutant:
    """What to send.

    Attributes:
        data: the bytes, with a frame where `framed`.
        framed: whether it began with a frame, before it was mutated.
        whole: True where only image bytes are mutated: the server must answer it.
    """

    data: bytes
    framed: bool
    whole: bool


class Mutator:
    """An endless supply of mutated requests; the same seed gives the same ones."""

    def __init__(self, seed: str, messages: Sequence[bytes], images: Sequence[bytes]) -> None:
        self._random = random.Random(seed)  # noqa: S311 (guards no secret)
        self._messages = messages
        self._images = images
        self._operators: tuple[Callable[[bytearray], None], ...] = (
            self._flip_bit,
            self._flip_bit,
            self._set_byte,
            self._set_type,
            self._set_integer,
            self._set_integer,
            self._add,
            self._cut,
            self._delete,
            self._duplicate,
            self._insert_random,
        )

    def next(self) -> Mutant:
        """One more."""
        pick = self._random.random()
        if pick < 0.5:
            return self._image_request()
        if pick < 0.53:
            return Mutant(self._random.randbytes(self._random.randint(1, 400)), False, False)
        if pick < 0.56:
            return self._deep()
        framed = self._random.random() < 0.5
        message = self._random.choice(self._messages)
        inside_frame = framed and self._random.random() < 0.5
        data = bytearray(wire.frame(message) if framed and not inside_frame else message)
        self._mutate(data, self._messages)
        mutated = bytes(data)
        return Mutant(wire.frame(mutated) if inside_frame else mutated, framed, False)

    def _image_request(self) -> Mutant:
        framed = self._random.random() < 0.5
        images = []
        for number in range(self._random.choice((1, 1, 1, 2, 4))):
            data = bytearray(self._random.choice(self._images))
            if self._random.random() < 0.9:
                self._mutate_image(data)
            images.append((b"%d" % number, bytes(data)))
        sequence_id = self._random.getrandbits(31)
        if len(images) == 1 and self._random.random() < 0.5:
            message = wire.infer_batch(sequence_id, *images[0])
        else:
            message = wire.infer_images(sequence_id, images)
        return Mutant(wire.frame(message) if framed else message, framed, True)

    def _mutate_image(self, data: bytearray) -> None:
        if self._random.random() < 0.15:
            set_dimensions(data, self._random.choice((_HUGE, b"\x00\x00", b"\x40\x00")))
        else:
            self._mutate(data, self._images)

    def _deep(self) -> Mutant:
        """Structs or lists within each other, of which the end may be missing."""
        depth = self._random.choice((10, 31, 33, 63, 65, 500, 5000))
        level = self._random.choice((b"\x0c\x00\x01", b"\x0f\x00\x00\x00\x01"))
        head = b"" if level[0] == 12 else b"\x0f\x00\x01"
        message = wire.call(b"infer_images", 1, head + level * depth + b"\x00" * depth)
        framed = self._random.random() < 0.5
        return Mutant(wire.frame(message) if framed else message, framed, False)

    def _mutate(self, data: bytearray, others: Sequence[bytes]) -> None:
        for _ in range(self._random.choice((1, 1, 1, 2, 3, 6))):
            if self._random.random() < 0.08:
                self._splice(data, self._random.choice(others))
            else:
                self._random.choice(self._operators)(data)
            if not data:
                data += self._random.randbytes(4)
        del data[_MOST_BYTES:]

    def _place(self, data: bytearray) -> int:
        """A place in `data`; more often near its start, where headers are."""
        reach = min(len(data), 64) if self._random.random() < 0.5 else len(data)
        return self._random.randrange(reach)

    def _flip_bit(self, data: bytearray) -> None:
        data[self._place(data)] ^= 1 << self._random.randrange(8)

    def _set_byte(self, data: bytearray) -> None:
        data[self._place(data)] = self._random.randrange(256)

    def _set_type(self, data: bytearray) -> None:
        data[self._place(data)] = self._random.choice(_WIRE_TYPES)

    def _set_integer(self, data: bytearray) -> None:
        packed = self._random.choice(_INTEGERS)
        value = self._random.choice(_INTERESTING) % (1 << (8 * packed.size))
        place = self._place(data)
        data[place : place + packed.size] = packed.pack(value)

    def _add(self, data: bytearray) -> None:
        place = self._place(data)
        data[place] = (data[place] + self._random.randint(-35, 35)) % 256

    def _cut(self, data: bytearray) -> None:
        del data[self._place(data) :]

    def _delete(self, data: bytearray) -> None:
        place = self._place(data)
        del data[place : place + self._random.randint(1, 32)]

    def _duplicate(self, data: bytearray) -> None:
        start = self._place(data)
        piece = data[start : start + self._random.choice((1, 4, 8, 64, 1024))]
        place = self._place(data)
        data[place:place] = piece * self._random.choice((1, 1, 2, 8))

    def _insert_random(self, data: bytearray) -> None:
        place = self._place(data)
        data[place:place] = self._random.randbytes(self._random.randint(1, 16))

    def _splice(self, data: bytearray, other: bytes) -> None:
        data[self._place(data) :] = other[self._random.randrange(len(other)) :]


def set_dimensions(data: bytearray, side: bytes) -> None:
    """Let the header of a JPEG or PNG say that both of its sides are `side` (two bytes) pixels."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        data[16:24] = (b"\x00\x00" + side) * 2
        return
    for marker in (b"\xff\xc0", b"\xff\xc2"):
        if (place := data.find(marker)) >= 0:
            data[place + 5 : place + 9] = side * 2
