"""The TOML document of a pipeline: reading the file, changing values, and how large it may be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli

from engine.cache.bounded_file import UnreadableFileError, read_bounded, why_no_file
from interfaces.names import shown, unknown_name
from pipeline.errors import PipelineConfigError
from pipeline.language.node_tables import normal_form

MAX_NODES = 256
_MAX_FILE_BYTES = 1024 * 1024
_MAX_DEPTH = 16
# What every reader of TOML takes.
_MAX_BITS = 64


def read_toml(path: str | Path) -> dict[str, Any]:
    """The document of a TOML file; PipelineConfigError if it cannot be read or does not parse.

    It must be a regular file of at most 1 MiB.
    """
    path = Path(path)
    try:
        text = read_bounded(path, _MAX_FILE_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise PipelineConfigError(
            f"cannot read the configuration {path}: it is not UTF-8 text"
        ) from error
    except UnreadableFileError as error:
        reason = why_no_file(path) or f"{path}: {error}"
        raise PipelineConfigError(f"cannot read the configuration: {reason}") from error
    try:
        return parse_toml(text)
    except tomli.TOMLDecodeError as error:
        raise PipelineConfigError(f"{path} is not valid TOML: {error}") from error
    except PipelineConfigError as error:
        raise PipelineConfigError(f"cannot read the configuration {path}: {error}") from error


def apply_overrides(document: Mapping[str, Any], overrides: Mapping[str, str]) -> dict[str, Any]:
    """A copy of the document, in its normal form, with "KEY" (a global) and "NODE.KEY" replaced.

    A value is read as TOML where it is TOML (`0`, `true`, `"text"`) and as plain text otherwise.
    """
    changed = normal_form(document)
    for target, text in overrides.items():
        # A logical node has a dot in its name; no key has.
        node, dot, key = target.rpartition(".")
        table = changed
        if dot:
            nodes = [name for name, value in changed.items() if isinstance(value, dict)]
            if node not in nodes:
                raise PipelineConfigError(unknown_name("node", node, nodes))
            table = changed[node]
        try:
            value = _override_value(text)
            check_document({"value": value})
        except PipelineConfigError as error:
            raise PipelineConfigError(f"{target} = {shown(text)}: {error}") from error
        table[key] = value
    return changed


def _override_value(text: str) -> Any:
    try:
        return parse_toml(f"value = {text}")["value"]
    except tomli.TOMLDecodeError:
        return text


def parse_toml(text: str) -> dict[str, Any]:
    """The document in a text.

    Raises:
        tomli.TOMLDecodeError: it is no TOML.
        PipelineConfigError: it is, and cannot be read: it nests too deeply, or a number is too
            long.
    """
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError:
        raise
    except RecursionError as error:
        raise PipelineConfigError(
            f"brackets or keys nest too deeply; at most {_MAX_DEPTH} levels are read"
        ) from error
    except ValueError as error:
        # Python converts no more digits.
        raise PipelineConfigError(
            f"a whole number is too long; at most {_MAX_BITS} bits are read"
        ) from error


def check_document(document: Mapping[str, Any]) -> None:
    """Refuse what nests too deeply, numbers of too many bits, and too many nodes.

    Raises:
        PipelineConfigError: that is so.
    """
    if (nodes := sum(isinstance(value, Mapping) for value in document.values())) > MAX_NODES:
        raise PipelineConfigError(f"the configuration has {nodes} nodes, at most {MAX_NODES}")
    level: list[Any] = [document]
    for _ in range(_MAX_DEPTH + 1):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, int) and value.bit_length() > _MAX_BITS:
                raise PipelineConfigError(
                    f"a whole number has {value.bit_length()} bits, at most {_MAX_BITS} are read"
                )
            if isinstance(value, Mapping):
                inner += value.values()
            elif isinstance(value, list | tuple):
                inner += value
        if not inner:
            return
        level = inner
    raise PipelineConfigError(f"values nest too deeply; at most {_MAX_DEPTH} levels are read")
