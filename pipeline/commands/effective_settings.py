"""The settings that count for a node, as rows of a table."""

from __future__ import annotations

from typing import Any

from pipeline.backends.postprocessing import Postprocessor
from pipeline.config import NodeConfig
from pipeline.language.settings import BatchShape

HEADER = ("setting", "value", "unit", "from")
EXPRESSION = "expression"

# Units by a word of what a setting expects, so that a backend's settings need no list of their own.
_UNITS = {"milliseconds": "ms", "megabytes": "MB", "pixels": "pixels", "rows": "rows"}


def setting_rows(node: NodeConfig) -> list[tuple[str, str, str, str]]:
    """One row a setting: its name, value, unit and origin.

    A setting in the expression's parentheses has a row of its own for each backend.
    """
    scheduling = {
        "backend": str(node.backend),
        "next": node.place.next,
        "map": node.place.mapping,
        "filter": node.place.filter,
        "instance_num": node.instance_num,
        "batching_timeout": node.batching_timeout_ms,
        "device_id": node.device_ids,
        "profile_stages": node.profile_stages,
        "shared_engine": node.shared_engine,
    }
    units = {"batching_timeout": "ms"}
    rows = [
        (name, _text(value), units.get(name, ""), _origin(node, name))
        for name, value in scheduling.items()
    ]
    found = list(node.backends())
    seen = set()
    for backend in found:
        for setting in backend.cls.settings:
            value = backend.settings[setting.name]
            unit = _unit(setting.expected, value)
            if setting.name in backend.own:
                title = f"{setting.name} ({backend.name})"
                rows.append((title, _text(value), unit, EXPRESSION))
            elif setting.name not in seen:
                seen.add(setting.name)
                rows.append((setting.name, _text(value), unit, node.origins[setting.name]))
    return rows


def _origin(node: NodeConfig, name: str) -> str:
    # `or = true` is another way to write a filter.
    if name == "filter" and node.place.filter == "or" and node.origins[name] == "default":
        name = "or"
    return node.origins[name]


def _unit(expected: str, value: Any) -> str:
    if value is None or value == ():
        return ""
    if isinstance(value, BatchShape) and "x" in str(value):
        return "shape"
    return next((unit for word, unit in _UNITS.items() if word in expected), "")


def _text(value: Any) -> str:
    if value is None or value == ():
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Postprocessor):
        return value.name
    if isinstance(value, tuple):
        return ", ".join(map(_text, value))
    return str(value)
