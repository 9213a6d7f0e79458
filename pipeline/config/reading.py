"""Reads a pipeline's document: the settings of its nodes, and what is wrong with it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from interfaces.names import shown
from pipeline.backends.assembly import expression_settings, takes_all_keys, without_effect
from pipeline.backends.behind_engine import split_postprocessor, with_backend_behind_engine
from pipeline.backends.filters import filter_named
from pipeline.backends.map_reduce import with_jumps_as_settings
from pipeline.backends.registry import backend_class, backend_settings, registered_backends
from pipeline.config.judging import judge_graph, judge_logical, judge_unread
from pipeline.config.node_config import NodeConfig, PipelineConfig
from pipeline.errors import PipelineConfigError
from pipeline.findings import Findings
from pipeline.language.document import check_document
from pipeline.language.expression import Expression, parse_expression
from pipeline.language.graph import Place, with_sources
from pipeline.language.member_values import member_values, with_member_values
from pipeline.language.node_tables import normal_form, physical_name
from pipeline.language.scoped_keys import with_scoped_keys
from pipeline.language.settings import DEFAULT_BACKEND, REQUIRED, SCHEDULING, Setting
from pipeline.language.torchpipe_names import is_refused, unknown_backend

_WORD = re.compile(r"[A-Za-z_]\w*")


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
    config = PipelineConfig(reader.nodes, sha256, tuple(reader.findings.warnings), reader.places)
    return config, reader.findings.mistakes + reader.findings.missing


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
        findings: what is wrong with the document.
    """

    def __init__(self, document: Mapping[str, Any], *, ignore_unknown_keys: bool) -> None:
        self.findings = Findings()
        self._known = {**{setting.name: setting for setting in SCHEDULING}, **backend_settings()}
        self._behind_engine: dict[str, str] = {}
        tables = self._tables(document)
        globals_ = {key: value for key, value in document.items() if key not in tables}
        if not tables:
            self.findings.mistakes.append(
                "the configuration has no node: add a table such as [decoder], or a backend"
            )
        common = self._values(globals_, "global setting")
        given = {name: self._given(name, table, common, globals_) for name, table in tables.items()}
        expressions = {
            name: self._expression(name, known)
            for name, known in given.items()
            if physical_name(name) == name
        }
        judge = partial(
            judge_unread,
            self.findings,
            known=self._known,
            ignore_unknown_keys=ignore_unknown_keys,
        )
        judge(globals_, "global setting", expressions.values())
        for name, expression in expressions.items():
            judge(tables[name], f"[{name}]", [expression])
        places = {name: self._place(name, known.values) for name, known in given.items()}
        self.places = with_sources(places)
        self.nodes = self._nodes(tables, given, expressions)
        lines_are_read = all(
            known.written.keys() & {"next", "map"} <= known.values.keys()
            for known in given.values()
        )
        judge_graph(self.findings, self.nodes, self.places, lines_are_read=lines_are_read)

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
                judge_logical(self.findings, name, tables[name])
                if (physical := nodes.get(physical_name(name))) is not None:
                    nodes[name] = replace(physical, name=name, place=self.places[name])
        return {name: nodes[name] for name in tables if name in nodes}

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
                self.findings.mistakes.append(str(error))
        return values

    def _expression(self, name: str, given: _Given) -> Expression | None:
        """The backends of a node; None if they cannot be read."""
        text = given.values.get("backend")
        if text is None and "backend" in given.written:
            return None
        where = f"[{name}] backend:"
        expression = self._parsed(text or DEFAULT_BACKEND, where)
        if expression is not None:
            expression = self.findings.of(
                where, partial(with_scoped_keys, expression, given.written)
            )
        if expression is not None:
            expression = with_member_values(expression, given.by_member, _reads)
            expression = self.findings.of(where, partial(with_jumps_as_settings, expression))
        if expression is None:
            return None
        if name in self._behind_engine:
            expression = with_backend_behind_engine(expression, self._behind_engine[name])
        backends, filters = dict.fromkeys(expression.names()), dict.fromkeys(expression.filters())
        found: list[object] = [
            self.findings.of(where, partial(backend_class, name)) for name in backends
        ]
        found += [self.findings.of(where, partial(filter_named, name)) for name in filters]
        if None in found:
            return None
        self.findings.warnings += dict.fromkeys(
            f"{where} {text}" for text in without_effect(expression)
        )
        return expression

    def _parsed(self, text: str, where: str) -> Expression | None:
        """An expression; None if it cannot be read, which a refused name may explain best."""
        try:
            return parse_expression(text)
        except PipelineConfigError as error:
            own = registered_backends()
            words = dict.fromkeys(_WORD.findall(text))
            refused = [name for name in words if is_refused(name) and name not in own]
            messages = [unknown_backend(name, ()) for name in refused] or [str(error)]
            self.findings.mistakes += [f"{where} {message}" for message in messages]
            return None

    def _node(
        self, name: str, given: _Given, place: Place, expression: Expression | None
    ) -> NodeConfig | None:
        """A node; None if its backend cannot be read, or a setting is missing."""
        of_backend: Sequence[Setting] | None = ()
        if expression is not None:
            where = f"[{name}] backend:"
            of_backend = self.findings.of(where, partial(expression_settings, expression))
        settings = (*SCHEDULING, *(of_backend or ()))
        required = [s for s in settings if s.default is REQUIRED and s.name not in given.values]
        self.findings.mistakes += [
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

    def _place(self, name: str, values: Mapping[str, Any]) -> Place:
        filter_name = values.get("filter")
        if values.get("or"):
            if filter_name not in (None, "or"):
                text = f"[{name}]: or = true and filter = {shown(filter_name)} differ"
                self.findings.mistakes.append(text)
            filter_name = "or"
        if filter_name is not None:
            self.findings.of(f"[{name}]:", partial(filter_named, filter_name))
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
