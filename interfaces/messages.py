"""Messages between processes: dataclasses as JSON, each with the name of its class."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints


def to_json(message: Any) -> str:
    """A message in one line; the same text for equal messages.

    Its fields are what JSON can hold, dataclasses, named tuples, and lists of these two.
    """
    return json.dumps([type(message).__name__, vars(message)], default=vars, sort_keys=True)


def from_json(text: str | bytes, kinds: Collection[type]) -> Any:
    """The message that `to_json` wrote.

    Args:
        text: what it wrote.
        kinds: the dataclasses that the message may be.

    Raises:
        ValueError: the text is none of these messages.
    """
    try:
        name, fields = json.loads(text)
        kind = next(kind for kind in kinds if kind.__name__ == name)
        return _read(kind, fields)
    except (ValueError, TypeError, StopIteration):
        known = ", ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"expected a message, {known}; got {text[:200]!r}") from None


def _read(kind: type, fields: Mapping[str, Any]) -> Any:
    readers = _readers(kind)
    return kind(**{k: readers[k](v) if k in readers else v for k, v in fields.items()})


@cache
def _readers(kind: type) -> dict[str, Callable[[Any], Any]]:
    """How those fields are read that JSON does not give back as they were."""
    hints: dict[str, Any] = get_type_hints(kind)
    readers = {name: _reader(hint) for name, hint in hints.items()}
    return {name: reader for name, reader in readers.items() if reader is not None}


def _reader(hint: Any) -> Callable[[Any], Any] | None:
    if is_dataclass(hint):
        return lambda fields: _read(hint, fields)  # type: ignore[arg-type]
    if hasattr(hint, "_make"):
        return hint._make  # type: ignore[no-any-return]
    if get_origin(hint) is list and (reader := _reader(get_args(hint)[0])) is not None:
        return lambda values: list(map(reader, values))
    return None
