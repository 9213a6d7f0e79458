"""The settings that count for a node, as rows of a table."""

from __future__ import annotations

from typing import Any

from pipeline.backends.postprocessing import Postprocessor
from pipeline.config import NodeConfig
from pipeline.language.settings import SCHEDULING, BatchShape, Setting

HEADER = ("setting", "value", "unit", "from")
EXPRESSION = "expression"


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
    units = {setting.name: setting.unit for setting in SCHEDULING}
    rows = [
        (name, value_text(value), units[name], _origin(node, name))
        for name, value in scheduling.items()
    ]
    found = list(node.backends())
    seen = set()
    for backend in found:
        for setting in backend.cls.settings:
            value = backend.settings[setting.name]
            unit = _unit(setting, value)
            if setting.name in backend.own:
                title = f"{setting.name} ({backend.name})"
                rows.append((title, value_text(value), unit, EXPRESSION))
            elif setting.name not in seen:
                seen.add(setting.name)
                rows.append((setting.name, value_text(value), unit, node.origins[setting.name]))
    return rows


def _origin(node: NodeConfig, name: str) -> str:
    # `or = true` is another way to write a filter.
    if name == "filter" and node.place.filter == "or" and node.origins[name] == "default":
        name = "or"
    return node.origins[name]


def _unit(setting: Setting, value: Any) -> str:
    if value is None or value == ():
        return ""
    if isinstance(value, BatchShape) and "x" in str(value):
        return "shape"
    return setting.unit


def value_text(value: Any) -> str:
    """A typed value of a setting, for a table."""
    if value is None or value == ():
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Postprocessor):
        return value.name
    if isinstance(value, tuple):
        return ", ".join(map(value_text, value))
    return str(value)
