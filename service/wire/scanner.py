"""Finds where a Thrift binary message ends, and refuses a malformed one before it costs memory.

thriftpy2's decoder trusts the lengths in a message, so nothing reaches it that has not been walked
here first. The walk is resumable: it stops where the bytes end and goes on when more have come.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from interfaces.service import MAX_FRAME_BYTES

# Wire types of the binary protocol.
_STOP, _STRING, _STRUCT, _MAP, _SET, _LIST = 0, 11, 12, 13, 14, 15
_FIXED_BYTES = {2: 1, 3: 1, 4: 8, 6: 2, 8: 4, 10: 8}  # bool, i8, double, i16, i32, i64
# Of a struct's fields each is walked by itself.
_WALKED_BYTES = {**_FIXED_BYTES, _STRUCT: 0}
_LEAST_BYTES = {**_FIXED_BYTES, _STRING: 4, _STRUCT: 1, _MAP: 6, _SET: 5, _LIST: 5}

_STRICT_VERSION = 0x8001
_HEADER = Struct(">HxBi")
_I32 = Struct(">i")
_LIST_HEADER = Struct(">Bi")
_MAP_HEADER = Struct(">BBi")

MAX_METHOD_NAME_BYTES = 255
DECODABLE_DEPTH = 64
"""How deep structs and containers may nest for thriftpy2 to decode them."""

PROTOCOL_ERROR = 7
"""TApplicationException's type of that name."""


@dataclass(frozen=True)
class MessageLimits:
    """What one message may cost.

    Attributes:
        frame_bytes: its size, framed or not.
        string_bytes: the size of one string or image in it; None for no limit of its own.
        values: how many values are walked one by one. An empty struct is one byte on the wire and
            some hundred bytes once decoded, so the size alone does not bound what a message costs.
        depth: how deep structs and containers may nest, at most DECODABLE_DEPTH.
    """

    frame_bytes: int = MAX_FRAME_BYTES
    string_bytes: int | None = None
    values: int = 100_000
    depth: int = 32


class ProtocolError(Exception):
    """Bytes that are no acceptable Thrift message; the connection cannot go on after them.

    Attributes:
        exception_type: the TApplicationException type that tells the client.
    """

    def __init__(self, message: str, exception_type: int = PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.exception_type = exception_type


class LimitError(ProtocolError):
    """A message beyond one of the limits; its text says the limit, its value and its option."""


class _Container:
    """A list, set or map that the walk is in.

    Attributes:
        left: how many of its values are to come; a map has two for each entry.
        next_type: the wire type of the next one.
        type_after: that of the one behind it.
    """

    __slots__ = ("left", "next_type", "type_after")

    def __init__(self, left: int, next_type: int, type_after: int) -> None:
        self.left = left
        self.next_type = next_type
        self.type_after = type_after


class MessageScanner:
    """Walks one message at a time.

    Args:
        limits: what a message may cost.

    Attributes:
        name: the method's name as it stands on the wire.
        message_type: 1 for a call.
        sequence_id: the client's number for the call.
        body_start: offset of the arguments' struct.
        end: offset behind the message; 0 until it is complete.
        values: how many values have been walked.
        open_string: offset and size of the string in which the bytes end; None where they end
            elsewhere.
    """

    __slots__ = (
        "_framed",
        "_limit",
        "_limits",
        "_longest_bytes",
        "_position",
        "_shortened_bytes",
        "_stack",
        "body_start",
        "end",
        "message_type",
        "name",
        "open_string",
        "sequence_id",
        "values",
    )

    def __init__(self, limits: MessageLimits) -> None:
        self._limits = limits
        # No string is longer than its length can say.
        self._longest_bytes = 2**31 if limits.string_bytes is None else limits.string_bytes
        self.reset()

    def reset(self, frame_bytes: int | None = None) -> None:
        """Start with a new message.

        Args:
            frame_bytes: size of the frame that the message is in; None for one without a frame,
                which may be as large as the limits allow.
        """
        self._limit = self._limits.frame_bytes if frame_bytes is None else frame_bytes
        self._framed = frame_bytes is not None
        self._shortened_bytes = 0
        self._position = 0
        self.values = 0
        # What the walk is in, from the outermost; None is a struct.
        self._stack: list[_Container | None] = [None]
        self.name = b""
        self.message_type = 0
        self.sequence_id = 0
        self.body_start = 0
        self.end = 0
        self.open_string: tuple[int, int] | None = None

    def shorten(self, count_bytes: int) -> None:
        """The string in which the walk has paused is so much shorter in the view from now on."""
        self._shortened_bytes += count_bytes

    def scan(self, view: memoryview) -> int:
        """Walk on through the bytes that are there.

        Args:
            view: the message from its first byte, as far as it has arrived.

        Returns:
            How many bytes the message has at least. Once `end` is set, exactly that many.

        Raises:
            ProtocolError: the bytes are no message.
            LimitError: the message passes a limit.
        """
        self.open_string = None
        if self._position == 0 and (needed := self.scan_header(view)):
            return needed
        available = len(view)
        position, stack = self._position, self._stack
        longest = self._longest_bytes
        while stack:
            container = stack[-1]
            if container is None:
                if position >= available:
                    return self._pause(position, position)
                value_type = view[position]
                if value_type == _STOP:
                    position += 1
                    stack.pop()
                    continue
                value = position + 3
            elif container.left == 0:
                stack.pop()
                continue
            else:
                value_type = container.next_type
                value = position

            inner: _Container | None = None
            if value_type == _STRING:
                after = value + 4
                if after <= available:
                    length = _I32.unpack_from(view, value)[0]
                    if not 0 <= length <= longest:
                        raise self._bad_string(length)
                    after += length
            elif value_type in _WALKED_BYTES:
                after = value + _WALKED_BYTES[value_type]
            else:
                after, inner = self._scan_container(view, value, value_type)

            if after > available:
                if value_type == _STRING:
                    self._pause_in_string(value, after, available)
                return self._pause(position, after)
            position = after
            self.values += 1
            if self.values > self._limits.values:
                raise self._too_many_values()
            if container is not None:
                container.left -= 1
                container.next_type, container.type_after = (
                    container.type_after,
                    container.next_type,
                )
            if value_type == _STRUCT or inner is not None:
                self._descend(inner)
        self.end = self._position = self._within_limit(position)
        return position

    def _descend(self, inner: _Container | None) -> None:
        if len(self._stack) == self._limits.depth:
            raise LimitError(
                f"the message nests deeper than --max-message-depth allows, which is "
                f"{self._limits.depth} levels"
            )
        self._stack.append(inner)

    def _pause_in_string(self, value: int, after: int, available: int) -> None:
        """Tell the string at `value` of which bytes are missing, once its length is known."""
        if value + 4 <= available:
            self.open_string = (value + 4, after - value - 4)

    def _pause(self, position: int, after: int) -> int:
        """Remember where to go on; every open struct needs its stop byte yet."""
        self._position = position
        return self._within_limit(after + self._stack.count(None))

    def _within_limit(self, needed: int) -> int:
        if needed + self._shortened_bytes > self._limit:
            raise self._too_large(
                f"the message needs {needed + self._shortened_bytes} bytes or more"
            )
        return needed

    def _too_large(self, what: str) -> ProtocolError:
        if self._framed:
            return ProtocolError(f"{what}, its frame allows {self._limit} bytes")
        return LimitError(f"{what}, --max-frame-bytes allows {self._limit}")

    def _too_many_values(self) -> ProtocolError:
        return LimitError(
            f"the message holds more values than --max-message-values allows, which is "
            f"{self._limits.values}"
        )

    def scan_header(self, view: memoryview) -> int:
        """Read version, type, name and sequence id.

        Args:
            view: the message from its first byte, as far as it has arrived.

        Returns:
            0, or how many bytes are needed where they are too few.

        Raises:
            ProtocolError: the bytes are not the start of a message.
        """
        if len(view) < _HEADER.size:
            return _HEADER.size
        version, self.message_type, length = _HEADER.unpack_from(view)
        if version != _STRICT_VERSION:
            raise ProtocolError(
                f"the message starts with 0x{version:04x}; this port speaks Thrift's strict binary "
                "protocol, whose messages start with 0x8001"
            )
        if not 0 <= length <= MAX_METHOD_NAME_BYTES:
            raise ProtocolError(
                f"the method's name has {length} bytes, at most {MAX_METHOD_NAME_BYTES} are allowed"
            )
        name_end = _HEADER.size + length
        body_start = name_end + _I32.size
        if len(view) <= body_start:
            return self._within_limit(body_start + 1)
        self.name = bytes(view[_HEADER.size : name_end])
        self.sequence_id = _I32.unpack_from(view, name_end)[0]
        self.body_start = self._position = body_start
        return 0

    def _bad_string(self, length: int) -> ProtocolError:
        if length < 0:
            return ProtocolError(f"a string has the negative length {length}")
        return LimitError(
            f"a string of {length} bytes was announced, --max-string-bytes allows "
            f"{self._limits.string_bytes}"
        )

    def _scan_container(
        self, view: memoryview, value: int, value_type: int
    ) -> tuple[int, _Container | None]:
        """Read a list's, set's or map's header.

        Returns:
            The offset behind the part that needs no walk, and the container for the part that
            does (None where all elements have a fixed size).
        """
        if value_type not in (_LIST, _SET, _MAP):
            raise ProtocolError(f"unknown wire type {value_type} of the value at byte {value}")
        header = _MAP_HEADER if value_type == _MAP else _LIST_HEADER
        after = value + header.size
        if after > len(view):
            return after, None
        *types, count = header.unpack_from(view, value)
        if count < 0:
            raise ProtocolError(f"a container has the negative count {count}")
        if count == 0:
            return after, None
        least = 0
        for element_type in types:
            if element_type not in _LEAST_BYTES:
                raise ProtocolError(f"unknown wire type {element_type} of a container's elements")
            least += _LEAST_BYTES[element_type]
        if after + self._shortened_bytes + count * least > self._limit:
            raise self._too_large(f"a container of {count} elements does not fit")
        if all(element_type in _FIXED_BYTES for element_type in types):
            return after + count * least, None
        return after, _Container(count * len(types), types[0], types[-1])
