"""Large strings of a message: received into memory of their own, and never copied.

thriftpy2's decoder would copy them twice more. What it decodes is the message without them: a mark
stands in the place of each, and `restore` puts the strings there afterwards.
"""

from __future__ import annotations

import ctypes
import io
import secrets
from collections.abc import Sequence
from typing import Any

# It is unknown outside of this process, so that no string of a client's own is taken for a mark.
_PREFIX = secrets.token_hex(12)
_PREFIX_BYTES = _PREFIX.encode()
MARK_BYTES = len(_PREFIX) + 8


# With NULL for the string, its memory is neither filled nor cleared, and so not touched.
_new_bytes = ctypes.pythonapi.PyBytes_FromStringAndSize
_new_bytes.argtypes = [ctypes.c_char_p, ctypes.c_ssize_t]
_new_bytes.restype = ctypes.py_object


def mark(index: int) -> bytes:
    """What stands for a message's string with this index."""
    return b"%s%08x" % (_PREFIX_BYTES, index)


class LargeString:
    """A string that arrives bit by bit, in memory of its own.

    The kernel gives it page by page, as it is written: what is announced and does not arrive costs
    nothing.

    Args:
        size_bytes: of the whole string.

    Attributes:
        view: the memory.

    Raises:
        MemoryError: so much is not to be had even in this way.
    """

    def __init__(self, size_bytes: int) -> None:
        # Bytes without another reference belong to the BytesIO: neither of its views copies them.
        self._memory = io.BytesIO(_new_bytes(None, size_bytes))
        self.view = self._memory.getbuffer()

    def whole(self) -> bytes:
        """The string, once all of it has arrived."""
        self.view.release()
        return self._memory.getvalue()


def restore(value: Any, strings: Sequence[bytes]) -> Any:
    """A decoded value with strings in the place of their marks; structs and lists are changed."""
    if isinstance(value, bytes):
        if len(value) == MARK_BYTES and value.startswith(_PREFIX_BYTES):
            return strings[int(value[-8:], 16)]
    elif isinstance(value, str):
        if len(value) == MARK_BYTES and value.startswith(_PREFIX):
            return _text(strings[int(value[-8:], 16)])
    elif isinstance(value, list):
        value[:] = [restore(element, strings) for element in value]
    elif isinstance(value, dict):
        return {restore(key, strings): restore(one, strings) for key, one in value.items()}
    elif hasattr(value, "thrift_spec"):
        fields = vars(value)
        for name in fields:
            fields[name] = restore(fields[name], strings)
    return value


def _text(string: bytes) -> str | bytes:
    """As thriftpy2 decodes it: bytes that are no text stay bytes."""
    try:
        return string.decode()
    except UnicodeDecodeError:
        return string
