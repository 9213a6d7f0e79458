"""The forms in which torchpipe takes a document, brought into one: globals, and a table a node."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from interfaces.names import closest_name_hint, shown
from pipeline.errors import PipelineConfigError
from pipeline.keys import TASK_KEYS

FLAT_NODE = "node"
"""The name of the one node of a document without tables."""
LOGICAL_KEYS = frozenset({"next", "map", "filter", "or"})
"""What a logical node says itself: its place in the graph."""

_GLOBAL = "global"
_INTERPRETER = "Interpreter::backend"
# What torchpipe puts around nodes by itself.
SCHEDULERS = ("PipelineV3", "PhysicalView", "BaselineSchedule")
_KEY_NAME = re.compile(r"\bTASK_[A-Z_]+_KEY\b")


def normal_form(document: Mapping[str, Any]) -> dict[str, Any]:
    """The same document with its globals and one table a node at the top, in the order of the file.

    * What stands in a table `global` becomes a global.
    * Without any table, globals with a backend are those of one node, named `FLAT_NODE`.
    * `Interpreter::backend` is left out where it names a scheduler that does what happens here
      anyway; one that is an expression is the backend of a node without another.
    * A table inside a node's, `[rec.2]`, that says something of a place in the graph or is empty
      becomes a table of the name "rec.2". Any other is a value of that node.
    * In texts the names of keys, such as TASK_DATA_KEY, become the keys.

    A document in this form is left as it is.

    Raises:
        PipelineConfigError: a key that is a global twice or no text, a table among the globals, or
            a name like TASK_X_KEY that is none.
    """
    _check_keys(document)
    normal: dict[str, Any] = {
        key: _without_key_names(key, value)
        for key, value in document.items()
        if not isinstance(value, Mapping)
    }
    tables = {key: value for key, value in document.items() if isinstance(value, Mapping)}
    global_table = tables.pop(_GLOBAL, {})
    _check_keys(global_table)
    for key, value in global_table.items():
        if key in normal:
            raise PipelineConfigError(f"{key} stands above the first table and in [{_GLOBAL}]")
        if isinstance(value, Mapping):
            raise PipelineConfigError(f"[{_GLOBAL}.{key}] is no global: a node is a table [{key}]")
        normal[key] = _without_key_names(f"[{_GLOBAL}] {key}", value)
    normal = _without_interpreter(normal, is_one_node=not tables)
    if not tables and "backend" in normal:
        tables = {FLAT_NODE: {}}
    for name, table in tables.items():
        normal.update(_nodes(name, table))
    return normal


def physical_name(name: str) -> str:
    """The name of the node whose instances run a node: "rec" for "rec.2" and for "rec"."""
    return name.partition(".")[0]


def _nodes(name: str, table: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    _check_keys(table)
    own: dict[str, Any] = {}
    inner: dict[str, Mapping[str, Any]] = {}
    for key, value in table.items():
        if isinstance(value, Mapping) and (not value or value.keys() & LOGICAL_KEYS):
            inner[key] = value
        else:
            own[key] = _without_key_names(f"[{name}] {key}", value)
    yield name, _without_interpreter(own, is_one_node=True)
    for key, value in inner.items():
        yield from _nodes(f"{name}.{key}", value)


def _check_keys(table: Mapping[str, Any]) -> None:
    for key in table:
        if not isinstance(key, str):
            raise PipelineConfigError(f"{shown(key)} is no key: nodes and settings have texts")


def _without_interpreter(values: dict[str, Any], *, is_one_node: bool) -> dict[str, Any]:
    """The values without `Interpreter::backend` where that is known to say nothing or `backend`."""
    if values.get(_INTERPRETER) in SCHEDULERS:
        return {key: value for key, value in values.items() if key != _INTERPRETER}
    if is_one_node and "backend" not in values:
        return {"backend" if key == _INTERPRETER else key: value for key, value in values.items()}
    return values


def _without_key_names(where: str, value: Any) -> Any:
    """The value with "data" in place of "TASK_DATA_KEY", and so on."""
    if not isinstance(value, str):
        return value

    def key_of(match: re.Match[str]) -> str:
        if match.group() not in TASK_KEYS:
            hint = closest_name_hint(match.group(), TASK_KEYS)
            raise PipelineConfigError(f"{where}: {match.group()} is the name of no key{hint}")
        return TASK_KEYS[match.group()]

    return _KEY_NAME.sub(key_of, value)
