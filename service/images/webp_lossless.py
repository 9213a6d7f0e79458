"""How many Huffman tables a lossless WebP asks for, read from its bit stream (RFC 9649, chapter 3).

A decoder builds the tables of all groups before it decodes a pixel, and a small file can name
65,536 groups. Their number stands behind the transforms, which are images of their own: so these
are read here, symbol by symbol, without keeping a pixel. Where that takes too long or leaves a
doubt, the most that is possible is assumed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from service.images.webp import Lossless, Webp

_PREDICTOR, _COLOUR, _SUBTRACT_GREEN = 0, 1, 2
_LENGTHS_ORDER = (17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
# For 16, 17 and 18 in a list of lengths: bits that follow, and the least that they count.
_REPEATS = ((2, 3), (3, 3), (7, 11))
_BYTE_SYMBOLS, _LENGTH_SYMBOLS, _DISTANCE_SYMBOLS = 256, 24, 40
_MOST_GROUPS, _MOST_CACHE_BITS = 65_536, 11
# Of a decoder whose groups are numbered with gaps: above this it leaves out what no tile names.
_GROUPS_WITH_GAPS = 1000
# The least that a group's five codes take, each with one symbol.
_LEAST_BITS_OF_GROUP = 20
_SMALLEST_TILE_SIDE = 4
# So few cost little beside the decoder itself, and are not counted.
_FEW_GROUPS = 512
# libwebp's tables of a group: of entries, by the bits of the colour cache, and what is beside them.
_TABLE_ENTRIES = (2954, 2956, 2958, 2962, 2970, 2986, 3018, 3082, 3212, 3468, 3980, 5004)
_ENTRY_BYTES, _GROUP_BYTES = 4, 600
# Of a file, about a microsecond each: usual ones of 12 million pixels take 10,000, and one for more
# than 64 bytes. Each stream takes some, and the table of a code one for as many entries.
_FEWEST_STEPS, _MOST_STEPS, _BYTES_OF_STEP = 2048, 32_768, 32
_STEPS_OF_STREAM, _ENTRIES_OF_STEP, _LENGTHS_OF_STEP = 16, 128, 4
_FILLED_BYTES = 64
# The longest of what one step reads has fewer bits.
_STEP_BITS = 80


@dataclass(frozen=True)
class HuffmanGroups:
    """What a decoder of the stream prepares.

    Attributes:
        count: of groups, each of five tables; at least as many as there are.
        cache_bits: of the colour cache, 0 to 11, whose codes make a table longer.
        steps: how many symbols were read to know it.
    """

    count: int
    cache_bits: int
    steps: int

    @property
    def memory_bytes(self) -> int:
        """Of all tables, if each is as long as it can be."""
        entries = _TABLE_ENTRIES[min(self.cache_bits, _MOST_CACHE_BITS)]
        return self.count * (_ENTRY_BYTES * entries + _GROUP_BYTES)


class _UnclearError(Exception):
    """It takes more steps than any usual file, or is nothing that an encoder writes."""


def most_huffman_groups(data: bytes, webp: Webp) -> HuffmanGroups:
    """Those of the stream that has the most, of all that a decoder may take.

    Args:
        data: the file. A stream may go on to its end, whatever length its chunk has.
        webp: what was found in it.
    """
    reader = _Reader(data, min(_MOST_STEPS, _FEWEST_STEPS + len(data) // _BYTES_OF_STEP))
    most = HuffmanGroups(0, 0, 0)
    try:
        for stream in webp.streams():
            reader.spend(_STEPS_OF_STREAM)
            found = _groups(reader, stream, len(data))
            most = max(most, found, key=lambda groups: groups.memory_bytes)
    except _UnclearError:
        sizes = {(each.width, each.height) for each in webp.lossless} | webp.lossy_sizes
        possible = max(_possible(*size, len(data)) for size in sizes)
        most = HuffmanGroups(possible, _MOST_CACHE_BITS, 0)
    return replace(most, steps=reader.steps)


def _groups(reader: _Reader, stream: Lossless, end: int) -> HuffmanGroups:
    possible = _possible(stream.width, stream.height, end - stream.start)
    if possible <= _FEW_GROUPS:
        return HuffmanGroups(possible, _MOST_CACHE_BITS, 0)
    reader.move_to(stream.start)
    count, cache_bits = reader.groups(stream.width, stream.height)
    return HuffmanGroups(min(count, possible), cache_bits, 0)


def _possible(width: int, height: int, size_bytes: int) -> int:
    """How many groups there may be, of an image and for the bytes of its stream."""
    tiles = _parts(width, _SMALLEST_TILE_SIDE) * _parts(height, _SMALLEST_TILE_SIDE)
    return min(_MOST_GROUPS, max(tiles, 1), 8 * size_bytes // _LEAST_BITS_OF_GROUP + 1)


def _parts(size: int, part: int) -> int:
    return -(-size // part)


class _Code:
    """A prefix code: what the next bits mean.

    Attributes:
        table: by the next bits: the symbol, and how many bits it has.
        mask: of the bits to look at.
    """

    __slots__ = ("mask", "table")

    def __init__(self, lengths: dict[int, int]) -> None:
        """Give each symbol its code; the only one of a code takes no bits."""
        longest = max(lengths.values(), default=0) if len(lengths) > 1 else 0
        self.mask = (1 << longest) - 1
        only = next(iter(lengths), 0)
        self.table: list[tuple[int, int]] = [(only, 0)] * (1 << longest)
        if not longest:
            return
        code = length = 0
        for symbol, bits in sorted(lengths.items(), key=lambda item: (item[1], item[0])):
            code <<= bits - length
            length = bits
            if code >> bits:
                # More codes than there are bits for.
                raise _UnclearError
            first = int(f"{code:0{bits}b}"[::-1], 2)
            self.table[first :: 1 << bits] = [(symbol, bits)] * (1 << longest - bits)
            code += 1


class _Reader:
    """Reads bits, the lowest of each byte first.

    Raises:
        _UnclearError: by any method: the steps or the data are used up, or a decoder would refuse.
    """

    def __init__(self, data: bytes, most_steps: int) -> None:
        self._data = data
        self._at = 0
        self._bits = 0
        self._count = 0
        self._most_steps = most_steps
        self.steps = 0

    def move_to(self, at: int) -> None:
        """Go on with the bits of the byte at `at`."""
        self._at = at
        self._bits = self._count = 0

    def spend(self, steps: int) -> None:
        """Count what reading takes."""
        self.steps += steps
        if self.steps > self._most_steps:
            raise _UnclearError

    def groups(self, width: int, height: int) -> tuple[int, int]:
        """How many groups there are, and the bits of the colour cache."""
        seen = set()
        while self._read(1):
            kind = self._read(2)
            if kind in seen:
                raise _UnclearError
            seen.add(kind)
            if kind in (_PREDICTOR, _COLOUR):
                side = 1 << self._read(3) + 2
                self._pass_image(_parts(width, side), _parts(height, side))
            elif kind != _SUBTRACT_GREEN:
                colours = self._read(8) + 1
                self._pass_image(colours, 1)
                # Of a few colours several lie in one pixel.
                in_pixel = 8 if colours <= 2 else 4 if colours <= 4 else 2 if colours <= 16 else 1
                width = _parts(width, in_pixel)
        cache_bits = self._cache_bits()
        if not self._read(1):
            return 1, cache_bits
        side = 1 << self._read(3) + 2
        largest, literals = self._pass_image(_parts(width, side), _parts(height, side))
        count = largest + 1
        if count > _GROUPS_WITH_GAPS:
            # Pixels that are no literals repeat one, or are the 0 of an empty cache.
            count = min(count, max(_GROUPS_WITH_GAPS, literals + 1))
        return count, cache_bits

    def _pass_image(self, width: int, height: int) -> tuple[int, int]:
        """Go through an image within the stream.

        Returns:
            The largest of its pixels, of which red and green are a number, and how many are
            literals.
        """
        cache_bits = self._cache_bits()
        cached = 1 << cache_bits if cache_bits else 0
        green = self._code(_BYTE_SYMBOLS + _LENGTH_SYMBOLS + cached)
        red, blue, alpha = (self._code(_BYTE_SYMBOLS) for _ in range(3))
        distance = self._code(_DISTANCE_SYMBOLS)
        largest = literals = 0
        left = width * height
        while left > 0:
            self.spend(1)
            if self._count < _STEP_BITS:
                self._fill()
            before = self._count
            symbol = self._symbol(green)
            if symbol < _BYTE_SYMBOLS:
                largest = max(largest, self._symbol(red) << 8 | symbol)
                self._symbol(blue)
                self._symbol(alpha)
                literals += 1
                left -= 1
            elif symbol < _BYTE_SYMBOLS + _LENGTH_SYMBOLS:
                left -= self._number(symbol - _BYTE_SYMBOLS)
                self._number(self._symbol(distance))
            else:
                left -= 1
            if self._count == before:
                # Nothing was read, and so all that follows is the same.
                break
        return largest, literals

    def _code(self, symbols: int) -> _Code:
        """Read a prefix code."""
        code = _Code(self._lengths(symbols))
        self.spend(len(code.table) // _ENTRIES_OF_STEP)
        return code

    def _lengths(self, symbols: int) -> dict[int, int]:
        """Read how many bits each symbol of a code has."""
        if self._read(1):
            two = self._read(1)
            lengths = {self._read(8 if self._read(1) else 1): 1}
            if two:
                lengths[self._read(8)] = 1
            return lengths
        of_lengths = {}
        for symbol in _LENGTHS_ORDER[: self._read(4) + 4]:
            if length := self._read(3):
                of_lengths[symbol] = length
        code = _Code(of_lengths)
        most = self._read(2 + 2 * self._read(3)) + 2 if self._read(1) else symbols
        lengths = {}
        symbol, before = 0, 8
        while symbol < symbols and most > 0:
            most -= 1
            if self._count < _STEP_BITS:
                self._fill()
            length = self._symbol(code)
            times = 1
            if length >= 16:
                bits, least = _REPEATS[length - 16]
                times = self._read(bits) + least
                length = before if length == 16 else 0
            elif length:
                before = length
            if length:
                lengths.update(dict.fromkeys(range(symbol, symbol + times), length))
            symbol += times
        self.spend(symbol // _LENGTHS_OF_STEP)
        return lengths

    def _cache_bits(self) -> int:
        return self._read(4) if self._read(1) else 0

    def _number(self, prefix: int) -> int:
        """A length or a distance, of which the first bits are known."""
        if prefix < 4:
            return prefix + 1
        extra = prefix - 2 >> 1
        return (2 + (prefix & 1) << extra) + self._read(extra) + 1

    def _symbol(self, code: _Code) -> int:
        symbol, bits = code.table[self._bits & code.mask]
        self._bits >>= bits
        self._count -= bits
        return symbol

    def _read(self, count: int) -> int:
        if self._count < count:
            self._fill()
        value = self._bits & (1 << count) - 1
        self._bits >>= count
        self._count -= count
        return value

    def _fill(self) -> None:
        """Have enough bits for any step; behind the end some are 0, since a step may need fewer."""
        if self._at >= len(self._data) + _FILLED_BYTES:
            raise _UnclearError
        more = self._data[self._at : self._at + _FILLED_BYTES]
        self._bits |= int.from_bytes(more, "little") << self._count
        self._at += _FILLED_BYTES
        self._count += 8 * _FILLED_BYTES
