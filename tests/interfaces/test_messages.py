"""Messages between processes are the same behind the line that they travel in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pytest

from interfaces.messages import from_json, to_json


class Point(NamedTuple):
    x: int
    y: float


@dataclass(frozen=True)
class Corner:
    name: str | None
    at: Point


@dataclass(frozen=True)
class Shape:
    size: dict[str, int]
    first: Corner
    corners: list[Corner]
    path: list[Point]


@dataclass(frozen=True)
class Empty:
    pass


_SHAPE = Shape(
    {"b": 2, "a": 1},
    Corner(None, Point(1, 2.5)),
    [Corner("a\nline", Point(3, 4))],
    [Point(5, 6), Point(7, 8)],
)


@pytest.mark.parametrize("message", [_SHAPE, Empty()])
def test_a_message_is_one_line_and_the_same_after_it(message: object) -> None:
    line = to_json(message)
    assert "\n" not in line
    assert from_json(line, [Empty, Shape]) == message


def test_equal_messages_are_the_same_text() -> None:
    other = Shape({"a": 1, "b": 2}, _SHAPE.first, _SHAPE.corners, _SHAPE.path)
    assert to_json(other) == to_json(_SHAPE)


@pytest.mark.parametrize(
    "text", ["", "{}", "[1, 2, 3]", '["Shape", {}]', '["Other", {}]', '["Empty", {"more": 1}]']
)
def test_anything_else_is_refused_with_what_is_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected a message, Shape, Empty; got "):
        from_json(text, [Shape, Empty])
