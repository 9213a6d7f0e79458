"""A pipeline's TOML document, or the same as a dictionary, read into checked node settings.

Everything that can be known without loading a model is checked here, so that a mistake is reported
at once and by name.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property, partial
from typing import Any, TypeVar

from interfaces.names import closest_name_hint, shown
from pipeline.backends.assembly import (
    ConfiguredBackend,
    backends_of,
    expression_settings,
    takes_all_keys,
    without_effect,
)
from pipeline.backends.behind_engine import split_postprocessor, with_backend_behind_engine
from pipeline.backends.filters import filter_named
from pipeline.backends.map_reduce import Division, Jump, with_jumps_as_settings
from pipeline.backends.registry import backend_class, backend_settings, registered_backends
from pipeline.errors import PipelineConfigError, PipelineInputError
from pipeline.keys import TASK_RESULT_KEY, TASK_RESULTS_KEY
from pipeline.language.document import check_document
from pipeline.language.expression import Expression, parse_expression
from pipeline.language.graph import Graph, Place, graph_mistakes, reachable, with_sources
from pipeline.language.member_values import member_values, with_member_values
from pipeline.language.node_tables import LOGICAL_KEYS, normal_form, physical_name
from pipeline.language.scoped_keys import scoped_to, with_scoped_keys
from pipeline.language.settings import DEFAULT_BACKEND, REQUIRED, SCHEDULING, Setting
from pipeline.language.torchpipe_names import (
    is_refused,
    is_torchpipe_key,
    unknown_backend,
    unknown_key,
    why_ignored,
)

_WORD = re.compile(r"[A-Za-z_]\w*")
_SCHEDULING_NAMES = tuple(setting.name for setting in SCHEDULING)
# What share of its characters a slip leaves.
_NEARLY_THE_SAME = 0.8

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class NodeConfig:
    """What a document says of a node, checked and with its defaults.

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
        written: all values that count for it as the document has them, by key.
        origins: for each of these and of the scheduler's own settings what gives it: "node",
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
    written: Mapping[str, Any]
    origins: Mapping[str, str]

    def backends(self) -> Iterator[ConfiguredBackend]:
        """Every backend of the expression, outermost first, with the settings that it will get."""
        return backends_of(self.backend, self.settings)

    @cached_property
    def jumps(self) -> tuple[str, ...]:
        """The nodes to which its backends send items, outermost backend first."""
        return tuple(
            it.settings["jump"]
            for it in self.backends()
            if issubclass(it.cls, Jump) and it.settings["jump"] is not None
        )

    @property
    def is_jump(self) -> bool:
        """Whether it does nothing but send items to another node, and so has no instances."""
        return issubclass(backend_class(self.backend.name), Jump)


@dataclass(frozen=True)
class PipelineConfig:
    """A whole configuration.

    Attributes:
        nodes: by name, in the order of the file.
        sha256: of what they were read from.
        warnings: what the document says without an effect.
        places: of all nodes, also of those that cannot be read and are not in `nodes`.
    """

    nodes: Mapping[str, NodeConfig]
    sha256: str
    warnings: tuple[str, ...] = ()
    places: Mapping[str, Place] = field(default_factory=dict)

    @cached_property
    def graph(self) -> Graph:
        """The nodes' graph; PipelineConfigError if they form none."""
        return Graph({name: node.place for name, node in self.nodes.items()})

    @property
    def with_instances(self) -> Mapping[str, NodeConfig]:
        """The nodes without the logical ones, which run the instances of another."""
        nodes = self.nodes.items()
        return {name: node for name, node in nodes if node.place.instances_of is None}

    def leads_on(self, name: str) -> bool:
        """Whether another node follows a node, under any name that it has."""
        same = (node for node in self.nodes.values() if physical_name(node.name) == name)
        return any(node.place.next for node in same)


def parse_config(
    document: Mapping[str, Any], *, ignore_unknown_keys: bool = False
) -> PipelineConfig:
    """Check a document and turn it into node settings.

    Args:
        document: that of the file.
        ignore_unknown_keys: as for `read_config`.

    Raises:
        PipelineConfigError: the first of its mistakes, see `read_config`.
    """
    config, mistakes = read_config(document, ignore_unknown_keys=ignore_unknown_keys)
    if mistakes:
        raise PipelineConfigError(mistakes[0])
    return config


def read_config(
    document: Mapping[str, Any], *, ignore_unknown_keys: bool = False
) -> tuple[PipelineConfig, list[str]]:
    """What can be read of a document, and one message for each mistake.

    Mistakes are unknown keys, nodes and backends (with the closest known name), values of the wrong
    type, nodes that cannot be connected as they are, and a document without a node. A wrong value,
    and a node whose backend cannot be read, is left out, so that it hides no other mistake.

    Args:
        document: that of the file.
        ignore_unknown_keys: whether a key that neither this project nor torchpipe has is no
            mistake, but ignored, which is a warning.
    """
    try:
        check_document(document)
        normal = normal_form(document)
        check_document(normal)
    except PipelineConfigError as error:
        return PipelineConfig({}, ""), [str(error)]
    reader = _Reader(normal, ignore_unknown_keys=ignore_unknown_keys)
    canonical = json.dumps(document, sort_keys=True, default=str)
    sha256 = hashlib.sha256(canonical.encode()).hexdigest()
    config = PipelineConfig(reader.nodes, sha256, tuple(reader.warnings), reader.places)
    return config, reader.mistakes


@dataclass(frozen=True)
class _Given:
    """What a document says of a node.

    Attributes:
        common: the global settings that can be read.
        own: those of its table.
        written: the values of both as they are written, also those that cannot be read.
        by_member: the values of its table that are for the members of its sequence.
    """

    common: Mapping[str, Any]
    own: Mapping[str, Any]
    written: Mapping[str, Any]
    by_member: Mapping[str, list[str]]

    @cached_property
    def values(self) -> Mapping[str, Any]:
        """The typed value of each key that counts for the node."""
        return {**self.common, **self.own}

    def origin(self, key: str) -> str:
        """Who gives a setting, as in `NodeConfig.origins`."""
        if key in self.own:
            return "node"
        return "global" if key in self.common else "default"


class _Reader:
    """Reads a document in its normal form and goes on after a mistake.

    Attributes:
        nodes: those that can be read, by name.
        places: of all nodes, by name.
        mistakes: one message for each.
        warnings: one message for what has no effect, or may not be meant.
    """

    def __init__(self, document: Mapping[str, Any], *, ignore_unknown_keys: bool) -> None:
        self._ignores_unknown_keys = ignore_unknown_keys
        self.mistakes: list[str] = []
        self.warnings: list[str] = []
        self._known = {**{setting.name: setting for setting in SCHEDULING}, **backend_settings()}
        self._behind_engine: dict[str, str] = {}
        tables = self._tables(document)
        globals_ = {key: value for key, value in document.items() if key not in tables}
        if not tables:
            self.mistakes.append(
                "the configuration has no node: add a table such as [decoder], or a backend"
            )
        common = self._values(globals_, "global setting")
        given = {name: self._given(name, table, common, globals_) for name, table in tables.items()}
        expressions = {
            name: self._expression(name, known)
            for name, known in given.items()
            if physical_name(name) == name
        }
        self._judge_unknown(globals_, "global setting", expressions.values())
        for name, expression in expressions.items():
            self._judge_unknown(tables[name], f"[{name}]", [expression])
        places = {name: self._place(name, known.values) for name, known in given.items()}
        self.places = with_sources(places)
        self.nodes = self._nodes(tables, given, expressions)
        self._judge_graph(given.values())

    def _tables(self, document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        """The tables of all nodes, without a backend that stands for a postprocessor."""
        tables: dict[str, Mapping[str, Any]] = {}
        for name, table in document.items():
            if isinstance(table, Mapping):
                tables[name], backend = split_postprocessor(table)
                if backend is not None:
                    self._behind_engine[name] = backend
        return tables

    def _nodes(
        self,
        tables: Mapping[str, Mapping[str, Any]],
        given: Mapping[str, _Given],
        expressions: Mapping[str, Expression | None],
    ) -> dict[str, NodeConfig]:
        """The nodes that can be read, in the order of the file."""
        nodes: dict[str, NodeConfig] = {}
        for name, expression in expressions.items():
            node = self._node(name, given[name], self.places[name], expression)
            if node is not None:
                nodes[name] = node
        for name in tables:
            if name not in expressions:
                self._warn_without_effect(name, tables[name])
                if (physical := nodes.get(physical_name(name))) is not None:
                    nodes[name] = replace(physical, name=name, place=self.places[name])
        return {name: nodes[name] for name in tables if name in nodes}

    def _judge_graph(self, given: Iterable[_Given]) -> None:
        """Tell what is wrong with the lines between the nodes."""
        # A line that cannot be read would make the graph look wrong elsewhere, too.
        lines_are_read = all(
            known.written.keys() & {"next", "map"} <= known.values.keys() for known in given
        )
        connected = graph_mistakes(self.places) if lines_are_read else []
        self.mistakes += connected
        graph = Graph(self.places) if lines_are_read and not connected else None
        self.mistakes += _jump_mistakes(self.nodes, self.places, graph)

    def _try(self, action: Callable[[], _Value], where: str = "") -> _Value | None:
        """What the action gives; None where it raises, which is one mistake more."""
        try:
            return action()
        except PipelineConfigError as error:
            self.mistakes.append(f"{where}{error}")
            return None

    def _given(
        self,
        name: str,
        table: Mapping[str, Any],
        common: Mapping[str, Any],
        globals_: Mapping[str, Any],
    ) -> _Given:
        by_member = member_values(table, _reads)
        own = {key: value for key, value in table.items() if key not in by_member}
        return _Given(common, self._values(own, f"[{name}]"), {**globals_, **own}, by_member)

    def _values(self, table: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The typed values of the known keys, without those that cannot be read."""
        values: dict[str, Any] = {}
        for key, value in table.items():
            if key not in self._known:
                continue
            try:
                values[key] = self._known[key].parse(value, where)
            except PipelineConfigError as error:
                self.mistakes.append(str(error))
        return values

    def _judge_unknown(
        self, table: Mapping[str, Any], where: str, expressions: Iterable[Expression | None]
    ) -> None:
        """Tell the keys that none of these expressions, which they are for, makes use of."""
        read = [expression for expression in expressions if expression is not None]
        takes_all = any(map(takes_all_keys, read))
        for key in table:
            if key in self._known or any(scoped_to(key, expression) for expression in read):
                continue
            if not takes_all and (reason := why_ignored(key)) is not None:
                self.warnings.append(f"{where}: {key} is ignored: {reason}")
            elif not takes_all and self._ignores_unknown_keys and not is_torchpipe_key(key):
                hint = closest_name_hint(key, self._known)
                self.warnings.append(f"{where}: {key} is ignored: no backend reads it{hint}")
            elif not takes_all:
                self.mistakes.append(f"{where}: {unknown_key(key, self._known)}")
            elif meant := get_close_matches(key, _SCHEDULING_NAMES, n=1, cutoff=_NEARLY_THE_SAME):
                self.warnings.append(
                    f"{where}: {key} is handed to a backend in Python; did you mean {meant[0]!r}?"
                )

    def _expression(self, name: str, given: _Given) -> Expression | None:
        """The backends of a node; None if they cannot be read."""
        text = given.values.get("backend")
        if text is None and "backend" in given.written:
            return None
        where = f"[{name}] backend: "
        expression = self._parsed(text or DEFAULT_BACKEND, where)
        if expression is not None:
            expression = self._try(partial(with_scoped_keys, expression, given.written), where)
        if expression is not None:
            expression = with_member_values(expression, given.by_member, _reads)
            expression = self._try(partial(with_jumps_as_settings, expression), where)
        if expression is None:
            return None
        if name in self._behind_engine:
            expression = with_backend_behind_engine(expression, self._behind_engine[name])
        backends, filters = dict.fromkeys(expression.names()), dict.fromkeys(expression.filters())
        found: list[object] = [self._try(partial(backend_class, name), where) for name in backends]
        found += [self._try(partial(filter_named, name), where) for name in filters]
        if None in found:
            return None
        self.warnings += dict.fromkeys(f"{where}{text}" for text in without_effect(expression))
        return expression

    def _parsed(self, text: str, where: str) -> Expression | None:
        """An expression; one that cannot be read may have names that tell more than its syntax."""
        try:
            return parse_expression(text)
        except PipelineConfigError as error:
            own = registered_backends()
            words = dict.fromkeys(_WORD.findall(text))
            refused = [name for name in words if is_refused(name) and name not in own]
            messages = [unknown_backend(name, ()) for name in refused] or [str(error)]
            self.mistakes += [f"{where}{message}" for message in messages]
            return None

    def _node(
        self, name: str, given: _Given, place: Place, expression: Expression | None
    ) -> NodeConfig | None:
        """A node; None if its backend cannot be read, or a setting is missing."""
        of_backend: Sequence[Setting] | None = ()
        if expression is not None:
            where = f"[{name}] backend: "
            of_backend = self._try(partial(expression_settings, expression), where)
        settings = (*SCHEDULING, *(of_backend or ()))
        required = [s for s in settings if s.default is REQUIRED and s.name not in given.values]
        self.mistakes += [
            f"[{name}]: {setting.name} is missing: expected {setting.expected}"
            for setting in required
            if setting.name not in given.written
        ]
        if expression is None or of_backend is None or required:
            return None
        values = {s.name: given.values.get(s.name, s.default) for s in settings}
        scheduling = {setting.name: values.pop(setting.name) for setting in SCHEDULING}
        return NodeConfig(
            name=name,
            backend=expression,
            place=place,
            instance_num=scheduling["instance_num"],
            batching_timeout_ms=scheduling["batching_timeout"],
            device_ids=scheduling["device_id"],
            profile_stages=scheduling["profile_stages"],
            shared_engine=scheduling["shared_engine"],
            settings=values,
            written=given.written,
            origins={setting.name: given.origin(setting.name) for setting in settings},
        )

    def _warn_without_effect(self, name: str, table: Mapping[str, Any]) -> None:
        """Tell the keys of a logical node that only its physical node may give."""
        unused = table.keys() - LOGICAL_KEYS
        if unused:
            self.warnings.append(
                f"[{name}] runs the instances of [{physical_name(name)}]; without effect here: "
                f"{', '.join(sorted(unused))}"
            )

    def _place(self, name: str, values: Mapping[str, Any]) -> Place:
        filter_name = values.get("filter")
        if values.get("or"):
            if filter_name not in (None, "or"):
                text = f"[{name}]: or = true and filter = {shown(filter_name)} differ"
                self.mistakes.append(text)
            filter_name = "or"
        if filter_name is not None:
            self._try(partial(filter_named, filter_name), f"[{name}]: ")
        physical = physical_name(name)
        return Place(
            values.get("next", ()),
            values.get("map", ()),
            filter_name,
            None if physical == name else physical,
        )


def _reads(expression: Expression, key: str) -> bool:
    """Whether a backend of the expression reads a key."""
    try:
        settings = expression_settings(expression)
    except PipelineConfigError:
        return False  # which is told where the backend is read
    return takes_all_keys(expression) or any(setting.name == key for setting in settings)


def _jump_mistakes(
    nodes: Mapping[str, NodeConfig], names: Collection[str], graph: Graph | None
) -> Iterator[str]:
    """A jump leads to a node, at which items can enter and that does not lead back to it.

    What it merges has to come from one end. Without a graph only the first of these can be judged.
    """
    for name, node in nodes.items():
        for backend in node.backends():
            if not issubclass(backend.cls, Jump):
                continue
            target = backend.settings["jump"]
            if target is None:
                yield f"[{name}]: jump is missing: {backend.name} needs the name of a node"
            elif target not in names:
                hint = closest_name_hint(target, names)
                yield f"[{name}] jump = {shown(target)} is no node{hint}"
            elif graph is not None:
                division = backend.cls.division(backend.settings)
                if why := _why_not_to(target, name, graph, nodes, division):
                    yield f"[{name}] jump = {shown(target)}: {why}"


def _why_not_to(
    target: str, name: str, graph: Graph, nodes: Mapping[str, NodeConfig], division: Division
) -> str:
    """Why a node cannot jump to another one; "" where it can."""
    try:
        passed = graph.from_entry(target)
    except PipelineInputError as error:
        return str(error)
    if name in _led_to(target, graph, nodes):
        return f"that way leads back to {name!r}, without an end"
    ends = [end for end in graph.places if end in passed and not graph.places[end].next]
    if len(ends) > 1 and TASK_RESULT_KEY in division.merge_keys:
        return (
            f"that way has several ends ({', '.join(ends)}), and none gives the result to merge; "
            f"join them in one node, or merge {TASK_RESULTS_KEY!r}, their results by node"
        )
    return ""


def _led_to(start: str, graph: Graph, nodes: Mapping[str, NodeConfig]) -> set[str]:
    """All nodes that are reached from there by `next` and by jumps."""

    def following(name: str) -> list[str]:
        jumps = nodes[name].jumps if name in nodes else ()
        return [*graph.places[name].next, *(jump for jump in jumps if jump in graph.places)]

    return reachable(start, following)
