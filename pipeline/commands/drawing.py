"""What is drawn of a configuration: also of nodes that cannot be read, marked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import networkx as nx

from engine.errors import EngineError
from engine.registry import AUTO
from pipeline.backends.assembly import ConfiguredBackend
from pipeline.backends.filters import filter_named
from pipeline.backends.inference import ENGINE_BACKEND, chosen_engine
from pipeline.backends.registry import backend_class
from pipeline.config import NodeConfig, PipelineConfig, read_config
from pipeline.errors import PipelineConfigError
from pipeline.language.expression import parse_expression
from pipeline.language.graph import Place
from pipeline.language.node_tables import normal_form

_NO_NODE = "there is no such node"
_HAS_MISTAKE = "has a mistake"


@dataclass(frozen=True)
class DrawnNode:
    """What a drawing shows of a node, which need not be one that can be loaded.

    Attributes:
        backend: its expression; "" where there is none.
        place: its place in the graph.
        settings: its instances, batch sizes and so on, one each.
        jumps: the nodes to which its backends send items.
        mark: what is wrong with it, or "".
    """

    backend: str
    place: Place = field(default_factory=Place)
    settings: tuple[str, ...] = ()
    jumps: tuple[str, ...] = ()
    mark: str = ""

    @property
    def facts(self) -> list[str]:
        """What is told of it beside its expression, the most important first."""
        return [*filter(None, [self.mark]), *self.settings]

    def taken_from(self, source: str) -> str:
        """What its `map` takes from another node."""
        taken = (entry for entry in self.place.mapping if entry.source == source)
        return ", ".join(f"{entry.taken}:{entry.given}" for entry in taken)

    @property
    def sources(self) -> tuple[str, ...]:
        """The nodes that its `map` names."""
        return tuple(dict.fromkeys(it.source for it in self.place.mapping if it.source))


@dataclass(frozen=True)
class Edge:
    """A line from one node to another.

    Attributes:
        source: the node that it leaves.
        target: the node that it enters.
        kind: why it is there: a `next`, a `jump`, or a `map` that takes from a node further up.
        label: the keys that the target's `map` takes from the source, or "jump".
    """

    source: str
    target: str
    kind: Literal["next", "jump", "map"] = "next"
    label: str = ""


@dataclass(frozen=True)
class Drawing:
    """What is drawn.

    Attributes:
        nodes: by name, in the order of the file; then those that are named and are not there.
    """

    nodes: Mapping[str, DrawnNode]

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """All lines, in the order of the file."""
        return tuple(self._edges())

    @property
    def has_layers(self) -> bool:
        """Whether no lines lead from a node back to it."""
        graph = nx.DiGraph((edge.source, edge.target) for edge in self.edges)
        return bool(nx.is_directed_acyclic_graph(graph))

    def _edges(self) -> Iterator[Edge]:
        for name, node in self.nodes.items():
            for following in dict.fromkeys(node.place.next):
                yield Edge(name, following, label=self.nodes[following].taken_from(name))
            for target in dict.fromkeys(node.jumps):
                yield Edge(name, target, "jump", "jump")
            for source in node.sources:
                if name not in self.nodes[source].place.next:
                    yield Edge(source, name, "map", node.taken_from(source))


def drawing_of(config: PipelineConfig) -> Drawing:
    """The drawing of a configuration without mistakes."""
    return Drawing({name: _drawn(node) for name, node in config.nodes.items()})


def sketched(document: Mapping[str, Any]) -> tuple[Drawing, list[str]]:
    """The drawing of a document, as far as it can be read, and its mistakes.

    Raises:
        PipelineConfigError: nothing of it can be drawn.
    """
    config, mistakes = read_config(document)
    if not config.places:
        raise PipelineConfigError(mistakes[0])
    tables = {key: it for key, it in normal_form(document).items() if isinstance(it, Mapping)}
    nodes: dict[str, DrawnNode] = {}
    for name, place in config.places.items():
        if name in config.nodes:
            is_wrong = any(mistake.startswith(f"[{name}]") for mistake in mistakes)
            nodes[name] = replace(_drawn(config.nodes[name]), mark=_HAS_MISTAKE if is_wrong else "")
        else:
            text = str(tables.get(place.instances_of or name, {}).get("backend", ""))
            nodes[name] = DrawnNode(text, place, mark=_why_unreadable(text))
    for node in list(nodes.values()):
        for other in (*node.place.next, *node.jumps, *node.sources):
            nodes.setdefault(other, DrawnNode("", mark=_NO_NODE))
    return Drawing(nodes), mistakes


def _why_unreadable(expression: str) -> str:
    """What of an expression that cannot be read is unknown."""
    try:
        parsed = parse_expression(expression)
    except PipelineConfigError:
        return _HAS_MISTAKE
    unknown = [
        *(name for name in dict.fromkeys(parsed.names()) if not _finds(backend_class, name)),
        *(
            f"({name})"
            for name in dict.fromkeys(parsed.filters())
            if not _finds(filter_named, name)
        ),
    ]
    return f"unknown here: {', '.join(unknown)}" if unknown else _HAS_MISTAKE


def _finds(find: Callable[[str], object], name: str) -> bool:
    try:
        find(name)
    except PipelineConfigError:
        return False
    return True


def _drawn(node: NodeConfig) -> DrawnNode:
    settings = node.settings
    facts = []
    if node.place.instances_of is not None:
        facts.append(f"the instances of {node.place.instances_of}")
    elif not node.is_jump:
        facts.append(f"{node.instance_num} instance{'s' if node.instance_num > 1 else ''}")
    if node.jumps:
        facts.append(f"jump {', '.join(node.jumps)}")
    keys = [name for name in ("split", "merge") if name in settings]
    facts += [f"{name} {', '.join(settings[name])}" for name in keys]
    facts += [_model_and_engine(it.settings) for it in node.backends() if _has_model(it)]
    for name in ("min", "max"):
        if name in settings:
            shapes = settings[name] if isinstance(settings[name], tuple) else (settings[name],)
            facts.append(f"{name} {'; '.join(map(str, shapes))}")
    if node.place.filter is not None:
        facts.append(f"filter {node.place.filter}")
    return DrawnNode(str(node.backend), node.place, tuple(facts), node.jumps)


def _has_model(backend: ConfiguredBackend) -> bool:
    return backend.name == ENGINE_BACKEND and backend.settings["model"] is not None


def _model_and_engine(settings: Mapping[str, Any]) -> str:
    """A node's model, and what runs it on this host."""
    model = Path(settings["model"]).name
    try:
        choice = chosen_engine(settings, AUTO)
    except EngineError:
        return model
    return f"{model} by {choice.name} {choice.precision}"
