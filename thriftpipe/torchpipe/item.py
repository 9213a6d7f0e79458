"""Items as torchpipe's users know them: `Dict`, and text that is bytes, too."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from pipeline.keys import TASK_DATA_KEY


class Dict(dict[str, Any]):
    """An item; torchpipe main's asynchronous calls and its lists of items want one.

    A plain dictionary does as well here.
    """

    def copy(self) -> Dict:
        """Another one with the same content."""
        return Dict(self)


class Text(str):
    """Text in an item that a call has filled.

    torchpipe v0 gives bytes there, main text: it compares equal to both, and has `decode`.
    """

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        """Whether it is the same text, or its UTF-8 bytes."""
        if isinstance(other, bytes):
            return self.encode() == other
        return str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        """Whether it is not."""
        return not self == other

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The plain text; it has been decoded before."""
        del encoding, errors
        return str(self)


def make_text(item: MutableMapping[str, Any]) -> None:
    """Make a `Text` of each text in an item, but for its data; also of those in a list."""
    for key, value in item.items():
        if key == TASK_DATA_KEY:
            continue
        if type(value) is str:
            item[key] = Text(value)
        elif type(value) is list and value and all(type(one) is str for one in value):
            item[key] = [Text(one) for one in value]
