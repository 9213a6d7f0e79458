"""The forms in which torchpipe takes a configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineConfigError
from pipeline.language.document import read_toml
from pipeline.language.node_tables import SCHEDULERS
from thriftpipe.torchpipe.errors import ConfigError, MissingFileError

GLOBAL = "global"
_ENGINE = "Interpreter::backend"
# Handed on with their types; whatever else there is becomes text, as torchpipe makes it of all.
_TYPED = (str, bool, int, float, list, tuple, type(None))


def document_of(config: object) -> dict[str, Any]:
    """The document that `pipe` is asked to load.

    Args:
        config: a TOML file; a dictionary of nodes, or with the settings of one; or a backend
            expression, which then is the only node.

    Raises:
        ConfigError: it is none of these, or cannot be read; see `read_file`.
    """
    if isinstance(config, Mapping):
        if not config:
            raise ConfigError("the configuration is empty: give it a backend, or nodes")
        return _values(config)
    if isinstance(config, str) and not config.endswith(".toml") and not Path(config).is_file():
        if os.sep in config:
            raise MissingFileError(
                f"{config}: no such file; a configuration is a TOML file or a dict"
            )
        return {"backend": config}
    if isinstance(config, str | os.PathLike):
        return read_file(config)
    raise ConfigError(
        f"a configuration is a TOML file or a dict, got {type(config).__name__}: {config!r}"
    )


def parse_toml(path: str | os.PathLike[str]) -> dict[str, dict[str, str]]:
    """A TOML file as text by key and node; what holds for all nodes is under "global".

    It may be changed, and given to `pipe`.

    Raises:
        ConfigError: the file cannot be read; see `read_file`.
    """
    document = read_file(path)
    tables: dict[str, dict[str, str]] = {GLOBAL: {}}
    for key, value in document.items():
        if isinstance(value, Mapping):
            _add_table(key, value, tables)
        else:
            tables[GLOBAL][key] = as_text(value)
    return tables


def read_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The document of a TOML file.

    Raises:
        ConfigError: it cannot be read or does not parse; a MissingFileError if there is no file.
    """
    path = Path(path)
    try:
        return read_toml(path)
    except PipelineConfigError as error:
        is_there = os.path.isfile(path)  # noqa: PTH113 (the other raises in a closed folder)
        kind = ConfigError if is_there else MissingFileError
        raise kind(str(error)) from error


def as_text(value: object) -> str:
    """A setting's value as torchpipe's backends get it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(as_text, value))
    return str(value)


def _add_table(name: str, table: Mapping[str, Any], tables: dict[str, dict[str, str]]) -> None:
    """Tables in a table, such as `[rec.2]`, are nodes of their own, with a dotted name."""
    tables.setdefault(name, {})
    for key, value in table.items():
        if isinstance(value, Mapping):
            _add_table(f"{name}.{key}", value, tables)
        else:
            tables[name][key] = as_text(value)


def _values(table: Mapping[Any, Any]) -> dict[str, Any]:
    """The values of a table; an empty text is none, as torchpipe's defaults are."""
    values = {str(key): _value(value) for key, value in table.items()}
    return {key: value for key, value in values.items() if value != ""}


def _value(value: object) -> object:
    if isinstance(value, Mapping):
        return _values(value)
    return value if isinstance(value, _TYPED) else str(value)


def own_engine(document: Mapping[str, Any]) -> bool:
    """Whether one backend runs calls by itself, and no scheduler splits them up into batches."""
    tables = [value for value in document.values() if isinstance(value, Mapping)]
    engine = next((one[_ENGINE] for one in (document, *tables) if _ENGINE in one), None)
    return engine is not None and engine not in SCHEDULERS
