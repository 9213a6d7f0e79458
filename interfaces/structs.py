"""Dataclasses made of Thrift structs, and structs of dataclasses, by the names of their fields."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

_T = TypeVar("_T")


def from_struct(kind: type[_T], struct: Any) -> _T:
    """The dataclass with the values of a struct, and of all structs in it.

    An optional field that the struct lacks has the dataclass's default.

    Raises:
        ValueError: it lacks a required one, or holds something else than the field's type.
    """
    values = {}
    required = {name for _, name, *_, is_required in struct.thrift_spec.values() if is_required}
    for name, hint in _hints(cast(Hashable, kind)).items():
        value = getattr(struct, name, None)
        if value is not None:
            values[name] = _read(hint, value)
        elif name in required:
            raise ValueError(f"{kind.__name__} lacks {name!r}")
    return kind(**values)


def to_struct(value: Any, structs: Any) -> Any:
    """The struct with the values of a dataclass, and of all dataclasses in it.

    Args:
        value: the dataclass; anything else stays as it is.
        structs: what has the structs as attributes, by the names of the dataclasses.
    """
    if is_dataclass(value) and not isinstance(value, type):
        names = (entry.name for entry in fields(value))
        given = {name: to_struct(getattr(value, name), structs) for name in names}
        return getattr(structs, type(value).__name__)(**given)
    if isinstance(value, Mapping):
        return {key: to_struct(one, structs) for key, one in value.items()}
    if isinstance(value, list):
        return [to_struct(one, structs) for one in value]
    return value


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _read(hint: Any, value: Any) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _read(arguments[0], value)
    if is_dataclass(hint):
        return from_struct(hint, value)  # type: ignore[arg-type]
    if origin is dict and isinstance(value, dict):
        return {key: _read(arguments[1], one) for key, one in value.items()}
    if origin is list and isinstance(value, list):
        return [_read(arguments[0], one) for one in value]
    if not isinstance(value, hint if origin is None else origin):
        raise ValueError(f"expected {hint}, got {type(value).__name__}")
    return value
