"""Reading a pipeline's TOML file (or the same as a dictionary) into checked node settings.

Everything that can be known without loading a model is checked here, so that a mistake is reported
at once and by name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import tomli

from engine.bounded_file import UnreadableFileError, read_bounded
from engine.names import closest_name_hint, unknown_name
from pipeline.assembly import expression_settings
from pipeline.errors import PipelineConfigError, PipelineInputError
from pipeline.expression import Expression, parse_expression
from pipeline.filters import filter_named
from pipeline.graph import Graph, Place
from pipeline.registry import backend_settings
from pipeline.settings import REQUIRED, SCHEDULING, Setting
from pipeline.torchpipe_names import unknown_key

_MAX_FILE_BYTES = 1024 * 1024


@dataclass(frozen=True)
class NodeConfig:
    """One node.

    Attributes:
        name: its name, the TOML table's.
        backend: its backend expression.
        place: its place in the graph.
        instance_num: how many instances it asks for.
        batching_timeout_ms: longest wait for `min` items.
        device_ids: numbers of the GPUs that get that many instances each.
        profile_stages: whether to keep the time of each of its backends.
        shared_engine: whether several workers leave it to one engine process: "auto" if it runs on
            a GPU, "always" if it has the engine, or "never".
        settings: typed value of every setting that its backends read.
        origins: for each of these and of the scheduler's own settings who gives it: "node",
            "global" or "default".
    """

    name: str
    backend: Expression
    place: Place
    instance_num: int
    batching_timeout_ms: float
    device_ids: tuple[int, ...]
    profile_stages: bool
    shared_engine: str
    settings: Mapping[str, Any]
    origins: Mapping[str, str]


@dataclass(frozen=True)
class PipelineConfig:
    """A whole configuration.

    Attributes:
        nodes: by name, in the order of the file.
        sha256: of what they were read from.
    """

    nodes: Mapping[str, NodeConfig]
    sha256: str

    @cached_property
    def graph(self) -> Graph:
        """The nodes' graph; PipelineConfigError if they form none."""
        return Graph({name: node.place for name, node in self.nodes.items()})


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
        raise PipelineConfigError(f"cannot read the configuration {path}: {error}") from error
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise PipelineConfigError(f"{path} is not valid TOML: {error}") from error


def apply_overrides(document: Mapping[str, Any], overrides: Mapping[str, str]) -> dict[str, Any]:
    """A copy of the document with "KEY" (a global) and "NODE.KEY" replaced.

    A value is read as TOML where it is TOML (`0`, `true`, `"text"`) and as plain text otherwise.
    """
    changed = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in document.items()
    }
    for target, text in overrides.items():
        node, dot, key = target.partition(".")
        table = changed
        if dot:
            nodes = [name for name, value in changed.items() if isinstance(value, dict)]
            if node not in nodes:
                raise PipelineConfigError(unknown_name("node", node, nodes))
            table = changed[node]
        table[key if dot else node] = _override_value(text)
    return changed


def _override_value(text: str) -> Any:
    try:
        return tomli.loads(f"value = {text}")["value"]
    except tomli.TOMLDecodeError:
        return text


def parse_config(document: Mapping[str, Any]) -> PipelineConfig:
    """Check a document and turn it into node settings.

    Raises:
        PipelineConfigError: an unknown key, node or backend (with the closest known name), a value
            of the wrong type, a `next` that leads nowhere or round in a circle, or no node at all.
    """
    tables = {key: value for key, value in document.items() if isinstance(value, Mapping)}
    globals_ = {key: value for key, value in document.items() if key not in tables}
    if not tables:
        raise PipelineConfigError("the configuration has no node: add a table such as [decoder]")
    known = {**{setting.name: setting for setting in SCHEDULING}, **backend_settings()}
    parsed_globals = _parse_table(globals_, known, "global setting")
    nodes = {
        name: _parse_node(name, table, parsed_globals, known) for name, table in tables.items()
    }
    canonical = json.dumps(document, sort_keys=True, default=str)
    config = PipelineConfig(nodes, hashlib.sha256(canonical.encode()).hexdigest())
    _check_jumps(config)
    return config


def _parse_table(
    table: Mapping[str, Any], known: Mapping[str, Setting], where: str
) -> dict[str, Any]:
    parsed = {}
    for key, value in table.items():
        if key not in known:
            raise PipelineConfigError(f"{where}: {unknown_key(key, known)}")
        parsed[key] = known[key].parse(value, where)
    return parsed


def _parse_node(
    name: str,
    table: Mapping[str, Any],
    globals_: Mapping[str, Any],
    known: Mapping[str, Setting],
) -> NodeConfig:
    where = f"[{name}]"
    own = _parse_table(table, known, where)
    given = {**globals_, **own}
    if "backend" not in given:
        raise PipelineConfigError(f"{where}: backend is missing: which backend does it run?")
    try:
        backend = parse_expression(given["backend"])
        read_here = (*SCHEDULING, *expression_settings(backend))
    except PipelineConfigError as error:
        raise PipelineConfigError(f"{where} backend: {error}") from error
    values, origins = {}, {}
    for setting in read_here:
        values[setting.name] = given.get(setting.name, setting.default)
        is_global = setting.name in globals_
        origins[setting.name] = (
            "node" if setting.name in own else "global" if is_global else "default"
        )
        if values[setting.name] is REQUIRED:
            raise PipelineConfigError(f"{where}: {setting.name} is missing: {setting.expected}")
    filter_name = values.pop("filter")
    if values.pop("or"):
        if filter_name not in (None, "or"):
            raise PipelineConfigError(f"{where}: or = true and filter = {filter_name!r} differ")
        filter_name = "or"
    if filter_name is not None:
        try:
            filter_named(filter_name)
        except PipelineConfigError as error:
            raise PipelineConfigError(f"{where}: {error}") from error
    place = Place(values.pop("next"), values.pop("map"), filter_name)
    values.pop("backend")
    return NodeConfig(
        name=name,
        backend=backend,
        place=place,
        instance_num=values.pop("instance_num"),
        batching_timeout_ms=values.pop("batching_timeout"),
        device_ids=values.pop("device_id"),
        profile_stages=values.pop("profile_stages"),
        shared_engine=values.pop("shared_engine"),
        settings=values,
        origins=origins,
    )


def _check_jumps(config: PipelineConfig) -> None:
    """The graph is one, and MapReduce leads to nodes that do not lead back to it."""
    graph = config.graph
    for name, node in config.nodes.items():
        target = node.settings.get("jump")
        if target is None:
            continue
        if target not in config.nodes:
            hint = closest_name_hint(target, config.nodes)
            raise PipelineConfigError(f"[{name}] jump = {target!r} is no node{hint}")
        try:
            graph.from_entry(target)
        except PipelineInputError as error:
            raise PipelineConfigError(f"[{name}] jump = {target!r}: {error}") from error
        reached, ahead = set[str](), [target]
        while ahead:
            current = ahead.pop()
            if current not in reached:
                reached.add(current)
                following = config.nodes[current].settings.get("jump")
                ahead += [*graph.places[current].next, *([] if following is None else [following])]
        if name in reached:
            raise PipelineConfigError(
                f"[{name}] jump = {target!r}: that way leads back to {name!r}, without an end"
            )
