"""The nodes of a pipeline and the lines between them: where an item enters, and its way on."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from interfaces.names import unknown_name
from pipeline.backends.filters import FIRST_FILTER
from pipeline.config import PipelineConfig
from pipeline.errors import PipelineInputError
from pipeline.keys import TASK_DATA_KEY, TASK_NODE_NAME_KEY, TASK_REQUEST_SIZE_KEY
from pipeline.language.graph import upstream_first
from pipeline.language.node_tables import physical_name
from pipeline.runtime.batch_source import Sink
from pipeline.runtime.flow import Flow, Route
from pipeline.runtime.map_reduce import JumpNode, jump_and_wait
from pipeline.runtime.node import Node
from pipeline.runtime.task import Task


class AnyNode(Sink, Protocol):
    """A node that runs here or in another process, or a jump."""

    def start(self) -> None:
        """Start what runs items."""

    def stop(self) -> None:
        """Run what is queued, and stop."""


class Network:
    """Connects nodes and sends items to them.

    In a chain each node hands its items to the next one itself; otherwise an item has a `Flow`.

    Args:
        config: all nodes.
        runners: those of them that run a backend, here or in another process.

    Attributes:
        nodes: all nodes by name; those that only jump, too.
    """

    def __init__(self, config: PipelineConfig, runners: Mapping[str, AnyNode]) -> None:
        self._graph = config.graph
        jumps = {name: node.jumps for name, node in config.nodes.items() if node.jumps}
        self.nodes = self._nodes(config, runners)
        for name in jumps.keys() & runners.keys():
            node = runners[name]
            assert isinstance(node, Node)  # noqa: S101 (the engine process takes chains alone)
            node.jump_by(partial(jump_and_wait, self.launch))
        targets = {target for ways in jumps.values() for target in ways}
        roots = [r for r in self._graph.roots if r not in targets] or self._graph.roots
        self._default_entry = roots[0] if len(roots) == 1 else None
        self._routes: dict[str, Route] = {}
        if self._graph.is_chain and not jumps:
            self._connect()
        else:
            self._routes = self._all_routes(config)

    def _nodes(self, config: PipelineConfig, runners: Mapping[str, AnyNode]) -> dict[str, AnyNode]:
        """All nodes by name; a logical one is the node whose instances it shares."""
        own: dict[str, AnyNode] = {
            name: JumpNode(node, self.launch) for name, node in config.nodes.items() if node.is_jump
        }
        own = {**runners, **own}
        return {name: own[name if name in own else physical_name(name)] for name in config.nodes}

    def _all_routes(self, config: PipelineConfig) -> dict[str, Route]:
        """The way from each node at which items can enter; of others `entry` says why not."""
        keys = {name: node.written for name, node in config.nodes.items()}
        routes = {}
        for name in config.nodes:
            with suppress(PipelineInputError):
                routes[name] = Route(self._graph, name, keys)
        return routes

    def entry(self, item: Mapping[str, Any]) -> str:
        """The name of the node at which an item enters.

        Raises:
            PipelineInputError: the item has no data, a `node_name` at which it cannot enter, or a
                `request_size` that is no number.
        """
        if TASK_DATA_KEY not in item:
            raise PipelineInputError(
                f"an item needs {TASK_DATA_KEY!r}, got {sorted(map(str, item))}"
            )
        name = item.get(TASK_NODE_NAME_KEY, self._default_entry)
        if len(self.nodes) == 1:
            name = self._default_entry
        if name is None:
            raise PipelineInputError(
                f"an item needs {TASK_NODE_NAME_KEY!r}: one of {', '.join(self._graph.roots)}"
            )
        if not isinstance(name, str) or name not in self.nodes:
            raise PipelineInputError(unknown_name("node", str(name), self.nodes))
        if self._routes and name not in self._routes:
            self._graph.from_entry(name)
        size = item.get(TASK_REQUEST_SIZE_KEY, 1)
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise PipelineInputError(
                f"{TASK_REQUEST_SIZE_KEY} = {size!r}: expected a whole number of at least 1"
            )
        return name

    def always_runs(self, node: AnyNode) -> frozenset[str]:
        """The entries at which every item is run by that node."""
        places = self._graph.places
        return frozenset(
            name
            for name, other in self.nodes.items()
            if other is node and places[name].filter in (None, FIRST_FILTER)
        )

    def launch(self, entry: str, task: Task, *, caller_waits: bool = False) -> None:
        """Send an item on its way; `caller_waits` as for a `Sink`."""
        if self._routes:
            Flow(self._routes[entry], task, self._submit).start()
        else:
            self.nodes[entry].submit(task, caller_waits=caller_waits)

    def _submit(self, name: str, branch: Task) -> None:
        self.nodes[name].submit(branch)

    def _connect(self) -> None:
        for name, node in self.nodes.items():
            for following in self._graph.places[name].next:
                if isinstance(node, Node):
                    node.connect(self.nodes[following])


def stop_order(config: PipelineConfig) -> list[str]:
    """The nodes' names in an order in which each precedes the nodes that it hands items to.

    The node after a jump gets its items from the last nodes that the jump leads through.
    """
    following = {name: list(place.next) for name, place in config.graph.places.items()}
    for name, node in config.nodes.items():
        for target in node.jumps:
            for passed in config.graph.reached(target):
                following[passed] += config.graph.places[name].next
            following[name].append(target)
    return upstream_first(following)
