"""What a pipeline's document says of its nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pipeline.backends.assembly import ConfiguredBackend, backends_of
from pipeline.backends.map_reduce import Jump
from pipeline.backends.registry import backend_class
from pipeline.language.expression import Expression
from pipeline.language.graph import Graph, Place
from pipeline.language.node_tables import physical_name


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
        settings: typed value of every setting that its backends read; `min` and `max` are among
            them where a backend has an engine. How many rows its instances take in the end only
            their backends can tell: `Node.batch_range`.
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
