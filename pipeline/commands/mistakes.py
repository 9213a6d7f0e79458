"""All mistakes of a document, where loading it would stop at the first.

Every key is read by itself, every backend looked up by itself, and every line of the graph tried
by itself; what is wrong is told and left out, so that it hides nothing that comes after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from pipeline.assembly import expression_settings
from pipeline.config import NodeConfig, parse_config
from pipeline.errors import PipelineConfigError
from pipeline.expression import parse_expression
from pipeline.filters import filter_named
from pipeline.graph import Graph, Mapped, Place
from pipeline.keys import TASK_DATA_KEY, TASK_RESULT_KEY
from pipeline.registry import backend_class, backend_settings
from pipeline.settings import REQUIRED, SCHEDULING
from pipeline.torchpipe_names import unknown_key

_Value = TypeVar("_Value")
# What a node cannot have that stands alone.
_GRAPH_KEYS = frozenset({"next", "map", "filter", "or"})


class DocumentCheck:
    """Looks through a document.

    Attributes:
        mistakes: one message for each; none for a document that `parse_config` takes.
        nodes: those that can be read, each as if it stood alone.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.mistakes: list[str] = []
        self.nodes: list[NodeConfig] = []
        self._known = {setting.name: setting for setting in SCHEDULING} | backend_settings()
        tables = {key: value for key, value in document.items() if isinstance(value, Mapping)}
        globals_ = {key: value for key, value in document.items() if key not in tables}
        common = self._values(globals_, "global setting")
        given = {name: common | self._values(table, f"[{name}]") for name, table in tables.items()}
        for name, values in given.items():
            # A backend that could not be read is told of already.
            is_missing = "backend" not in {**globals_, **tables[name]}
            self._check_node(name, values, is_missing=is_missing)
        self._check_graph(given)
        for name, table in tables.items():
            self._read_alone(name, {**globals_, **table}, {**common, **given[name]})
        if not self.mistakes:
            self._try(lambda: parse_config(document))

    def _try(self, action: Callable[[], _Value], where: str = "") -> _Value | None:
        """What the action gives, or None and a message."""
        try:
            return action()
        except PipelineConfigError as error:
            self.mistakes.append(f"{where}{error}")
            return None

    def _values(self, table: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The values that can be read."""
        values = {}
        for key, value in table.items():
            if key not in self._known:
                self.mistakes.append(f"{where}: {unknown_key(key, self._known)}")
                continue
            setting = self._known[key]
            parsed = self._try(lambda s=setting, v=value: s.parse(v, where))  # type: ignore[misc]
            if parsed is not None:
                values[key] = parsed
        return values

    def _check_node(self, name: str, values: Mapping[str, Any], *, is_missing: bool) -> None:
        where = f"[{name}]"
        if is_missing:
            self.mistakes.append(f"{where}: backend is missing: which backend does it run?")
        if "backend" in values:
            self._check_backend(where, values)
        filter_name = values.get("filter")
        if filter_name is not None:
            self._try(lambda: filter_named(filter_name), f"{where}: ")
        if values.get("or") and filter_name not in (None, "or"):
            self.mistakes.append(f"{where}: or = true and filter = {filter_name!r} differ")

    def _check_backend(self, where: str, values: Mapping[str, Any]) -> None:
        expression = self._try(lambda: parse_expression(values["backend"]), f"{where} backend: ")
        if expression is None:
            return
        names = dict.fromkeys(expression.names())
        classes = [
            self._try(lambda n=n: backend_class(n), f"{where} backend: ")  # type: ignore[misc]
            for n in names
        ]
        if None in classes:
            return
        for setting in (
            self._try(lambda: expression_settings(expression), f"{where} backend: ") or []
        ):
            if setting.default is REQUIRED and setting.name not in values:
                self.mistakes.append(f"{where}: {setting.name} is missing: {setting.expected}")

    def _read_alone(self, name: str, table: Mapping[str, Any], readable: Mapping[str, Any]) -> None:
        kept = {key: table[key] for key in readable if key not in _GRAPH_KEYS}
        # Why not is among the mistakes; or it is a MapReduce, whose jump leads out of here.
        with suppress(PipelineConfigError):
            self.nodes += parse_config({name: kept}).nodes.values()

    def _check_graph(self, given: Mapping[str, Mapping[str, Any]]) -> None:
        if not given:
            return
        lines: dict[str, tuple[str, ...]] = dict.fromkeys(given, ())
        for name, values in given.items():
            for following in values.get("next", ()):
                more = lines | {name: (*lines[name], following)}
                if self._try(lambda n=more: _graph(n)) is not None:  # type: ignore[misc]
                    lines = more
        for name, values in given.items():
            place = Place((), values.get("map", ()), values.get("filter"))
            self._try(lambda n=name, p=place: _graph(lines, n, p))  # type: ignore[misc]


def _graph(
    lines: Mapping[str, tuple[str, ...]], judged: str | None = None, own: Place | None = None
) -> Graph:
    """The graph of these lines, in which all joins but the judged one have a `map` that works."""
    before = {name: [o for o, nexts in lines.items() if name in nexts] for name in lines}
    places = {}
    for name, following in lines.items():
        needed = (Mapped(before[name][0], TASK_RESULT_KEY, TASK_DATA_KEY),) if before[name] else ()
        places[name] = Place(following, needed)
        if name == judged and own is not None:
            places[name] = Place(following, own.mapping, own.filter)
    return Graph(places)
