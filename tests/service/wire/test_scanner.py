"""The walk through a message: exact for good ones, in whatever pieces they come."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.wire.scanner import MessageLimits, MessageScanner, ProtocolError

MAX_DEPTH = MessageLimits().depth
MAX_VALUES = MessageLimits().values
HEADER = b"\x80\x01\x00\x01\x00\x00\x00\x04ping\x00\x00\x00\x2a"

FIXED = {2: 1, 3: 1, 4: 8, 6: 2, 8: 4, 10: 8}


def fixed_value(wire_type: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=FIXED[wire_type], max_size=FIXED[wire_type])


@st.composite
def typed_value(draw: st.DrawFn, depth: int = 0) -> tuple[int, bytes]:
    """A wire type and a value of it, encoded by hand."""
    kinds = [*FIXED, 11] + ([12, 13, 14, 15] if depth < 4 else [])
    kind = draw(st.sampled_from(kinds))
    if kind in FIXED:
        return kind, draw(fixed_value(kind))
    if kind == 11:
        text = draw(st.binary(max_size=20))
        return kind, struct.pack(">i", len(text)) + text
    if kind == 12:
        return kind, draw(struct_body(depth + 1))
    # All elements of a container are of one type: repeat one drawn value.
    count = draw(st.integers(0, 4))
    value_type, value = draw(typed_value(depth + 1))
    if kind == 13:
        key_type, key = draw(typed_value(depth + 1))
        return kind, struct.pack(">bbi", key_type, value_type, count) + (key + value) * count
    return kind, struct.pack(">bi", value_type, count) + value * count


@st.composite
def struct_body(draw: st.DrawFn, depth: int = 0) -> bytes:
    fields = draw(st.lists(typed_value(depth), max_size=4))
    encoded = [
        struct.pack(">bh", kind, number) + value for number, (kind, value) in enumerate(fields)
    ]
    return b"".join(encoded) + b"\0"


def scanner_for(message: bytes, limit: int | None = None) -> MessageScanner:
    return MessageScanner(MessageLimits(frame_bytes=len(message) if limit is None else limit))


@given(struct_body(), st.binary(max_size=20))
def test_the_end_of_any_message_is_found(body: bytes, behind: bytes) -> None:
    """In one go, and with other bytes behind it."""
    message = HEADER + body
    scanner = scanner_for(message)
    assert scanner.scan(memoryview(message + behind)) == len(message) == scanner.end
    assert (scanner.name, scanner.message_type, scanner.sequence_id) == (b"ping", 1, 42)
    assert scanner.body_start == len(HEADER)


@given(struct_body(), st.data())
def test_a_message_in_pieces_is_never_asked_for_too_much(body: bytes, data: st.DataObject) -> None:
    """`scan` says how many bytes there must be at least: waiting for them never hangs."""
    message = HEADER + body
    scanner = scanner_for(message)
    arrived = 0
    while not scanner.end:
        needed = scanner.scan(memoryview(message[:arrived]))
        assert needed <= len(message)
        if not scanner.end:
            assert needed > arrived
            arrived = data.draw(st.integers(arrived + 1, needed))
    assert scanner.end == len(message)


def test_the_last_bytes_of_a_call_are_foreseen() -> None:
    """Once the length of the image is known, so is the whole call: one receive fetches it."""
    fields = b"\x0b\x00\x01" + struct.pack(">i", 2) + b"u1" + b"\x0b\x00\x02"
    message = HEADER + b"\x0c\x00\x01" + fields + struct.pack(">i", 5000) + b"x" * 5000 + b"\0\0"
    scanner = scanner_for(message, limit=100_000)
    assert scanner.scan(memoryview(message[: len(HEADER) + 30])) == len(message)


@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_result_or_a_protocol_error(body: bytes) -> None:
    message = HEADER + body
    try:
        needed = scanner_for(message, limit=1000).scan(memoryview(message))
    except ProtocolError:
        return
    assert 0 < needed <= 1000


def test_nesting_is_allowed_up_to_its_limit() -> None:
    for levels, fits in ((MAX_DEPTH - 1, True), (MAX_DEPTH, False)):
        message = HEADER + b"\x0c\x00\x01" * levels + b"\0" * (levels + 1)
        if fits:
            assert scanner_for(message).scan(memoryview(message)) == len(message)
        else:
            with pytest.raises(ProtocolError, match=r"--max-message-depth .* 32 levels"):
                scanner_for(message).scan(memoryview(message))


def test_the_number_of_values_is_limited() -> None:
    """An empty struct is one byte that becomes some hundred when decoded."""
    for count, fits in ((MAX_VALUES - 1, True), (MAX_VALUES, False)):
        message = HEADER + b"\x0f\x00\x01\x0c" + struct.pack(">i", count) + b"\0" * (count + 1)
        if fits:
            assert scanner_for(message).scan(memoryview(message)) == len(message)
        else:
            with pytest.raises(ProtocolError, match=r"--max-message-values .* 100000"):
                scanner_for(message).scan(memoryview(message))


def test_a_long_list_of_numbers_is_one_step() -> None:
    """Elements of fixed size need no walk, so they don't count towards the values."""
    count = 10 * MAX_VALUES
    message = HEADER + b"\x0f\x00\x01\x03" + struct.pack(">i", count) + b"\1" * count + b"\0"
    assert scanner_for(message).scan(memoryview(message)) == len(message)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (b"\x80\x02\x00\x01\x00\x00\x00\x04", "starts with 0x8002"),
        (b"\x80\x01\x00\x01\xff\xff\xff\xff", "name has -1 bytes"),
        (b"\x80\x01\x00\x01\x00\x00\x01\x00", "name has 256 bytes"),
        (HEADER + b"\x0b\x00\x01\xff\xff\xff\xfe", "negative length -2"),
        (HEADER + b"\x0f\x00\x01\x0c\xff\xff\xff\xfe", "negative count -2"),
        (HEADER + b"\x01\x00\x01", "unknown wire type 1"),
        (HEADER + b"\x0f\x00\x01\x00\x00\x00\x00\x01", "unknown wire type 0"),
        (HEADER + b"\x0b\x00\x01\x00\x00\x03\xe8", "--max-frame-bytes allows 1000"),
        (HEADER + b"\x0d\x00\x01\x0a\x0b\x00\x00\x00\x63", "99 elements does not fit"),
    ],
)
def test_a_refusal_says_what_is_wrong(message: bytes, told: str) -> None:
    with pytest.raises(ProtocolError, match=told):
        scanner_for(message, limit=1000).scan(memoryview(message))
