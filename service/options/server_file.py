"""The TOML file with the service's own options: one table, `[server]`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tomli

from engine.cache.bounded_file import UnreadableFileError, read_bounded
from interfaces.names import shown, unknown_name
from interfaces.options import Option
from service.errors import ConfigurationError

_TABLE = "server"
_MAX_FILE_BYTES = 1024 * 1024
_FIRST_TABLE = re.compile(r"^\s*\[+\s*([\w-]+)", re.MULTILINE)
# Of a node of the pipeline, which may have any name.
_KEY_OF_A_NODE = "backend"


def server_table(path: str, options: Mapping[str, Option]) -> Mapping[str, Any] | None:
    """The service's own options in a file; None where it is another file, such as a graph.

    A file is the service's where `[server]` is all it has, and that is no node of the pipeline. No
    graph that can be served is such a file, since one node without a backend runs no engine.

    Args:
        path: of the file.
        options: what there is, by name.

    Raises:
        ConfigurationError: it would be the service's, and is not valid TOML, or has more.
    """
    try:
        # Editors of Windows put a mark of the encoding in front.
        text = read_bounded(Path(path), _MAX_FILE_BYTES).decode("utf-8-sig")
    except (UnreadableFileError, UnicodeDecodeError):
        # The pipeline, which reads it as a graph, says what is wrong with it.
        return None
    try:
        document = tomli.loads(text)
    except (ValueError, RecursionError) as error:
        first = _FIRST_TABLE.search(text)
        if first is not None and first[1] == _TABLE and _KEY_OF_A_NODE not in text:
            raise ConfigurationError(f"{path} is not valid TOML: {error}") from error
        return None
    table = document.get(_TABLE)
    if isinstance(table, dict) and len(document) == 1 and _KEY_OF_A_NODE not in table:
        return table
    if _KEY_OF_A_NODE not in text:
        # It is no graph either.
        _refuse_misplaced(path, document, options)
    return None


def _refuse_misplaced(
    path: str, document: Mapping[str, Any], options: Mapping[str, Option]
) -> None:
    """Raise ConfigurationError where options of the service are not in their table alone."""
    # The others may be keys of nodes.
    names = {name for name, one in options.items() if one.group == _TABLE}
    rule = f"options of the service belong into the table [{_TABLE}], and nothing stands beside it"
    for key, value in document.items():
        is_table = isinstance(value, dict)
        found = {name.replace("-", "_") for name in (key, *(value if is_table else ()))}
        if key != _TABLE and (_TABLE in document or found & names):
            shown_key = f"[{key}]" if is_table else key
            raise ConfigurationError(f"{path}: {rule}; this file has {shown_key}")


def texts_of_file(
    path: str, table: Mapping[str, Any], options: Mapping[str, Option]
) -> dict[str, list[str]]:
    """The options of a file as a command line would have them, by their names.

    Args:
        path: of the file, for messages.
        table: its options; names with dashes or underscores.
        options: what there is, by name.

    Raises:
        ConfigurationError: a name is unknown, or a value is not allowed.
    """
    found: dict[str, list[str]] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in options:
            raise ConfigurationError(f"{path}: {unknown_name('option', key, options)}")
        if name in found:
            raise ConfigurationError(f"{path}: {key} is there with dashes and with underscores")
        try:
            found[name] = list(_texts(options[name], value))
        except argparse.ArgumentTypeError as error:
            raise ConfigurationError(f"{path}: {key}: {error}") from error
    return found


def _texts(described: Option, value: Any) -> Iterator[str]:
    """A value as texts of the option, more than one only where it may be repeated."""
    if described.is_switch:
        if not isinstance(value, bool):
            raise argparse.ArgumentTypeError(f"takes true or false, got {shown(value)}")
        yield _scalar(described, value)
    elif described.is_repeated and isinstance(value, dict):
        yield from (f"{key}={text}" for key, text in _flat(described, value, ""))
    elif described.is_repeated and isinstance(value, list):
        for text in value:
            yield from _texts(described, text)
    elif isinstance(value, list):
        text = ",".join(_scalar(described, one) for one in value)
        described.kind(text)
        yield text
    else:
        if isinstance(value, bool):
            raise argparse.ArgumentTypeError(f"takes a {described.kind.name}, got {shown(value)}")
        text = _scalar(described, value)
        described.kind(text)
        yield text


def _flat(described: Option, table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    """The values of nested tables, by their dotted names."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(described, value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _scalar(described, value)


def _scalar(described: Option, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise argparse.ArgumentTypeError(f"takes a {described.kind.name}, got {shown(value)}")
