"""`pipe(...)`: a configuration turned into a thread-safe callable."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

from engine.names import unknown_name
from pipeline.config import PipelineConfig, parse_config, read_toml
from pipeline.engine_process.remote_node import RemoteNode
from pipeline.errors import DeadlinePassedError, ItemsFailedError, PipelineInputError
from pipeline.flow import Flow, Route
from pipeline.instance import BatchSource
from pipeline.keys import (
    TASK_DATA_KEY,
    TASK_ERROR_KEY,
    TASK_NODE_NAME_KEY,
    TASK_REQUEST_SIZE_KEY,
    TASK_RESULT_KEY,
    TASK_RESULTS_KEY,
    TASK_STAGE_TIMES_KEY,
)
from pipeline.map_reduce import MapReduceNode, is_map_reduce
from pipeline.node import Node
from pipeline.task import Task, WaitingCall
from service.rebuild_rule import DEFAULT_RULE, RebuildRule

CallItem: TypeAlias = MutableMapping[str, Any]
OUTCOME_KEYS = (TASK_RESULT_KEY, TASK_RESULTS_KEY, TASK_ERROR_KEY, TASK_STAGE_TIMES_KEY)


def pipe(
    config: str | Path | Mapping[str, Any],
    *,
    engine: str = "auto",
    rebuild: RebuildRule = DEFAULT_RULE,
) -> Pipe:
    """Load a pipeline.

    Args:
        config: a TOML file, or its content as a dictionary.
        engine: what runs the model behind TensorrtTensor: a provider's name, or "auto".
        rebuild: when an instance counts as broken, and how often it is made anew.

    Returns:
        A callable that any number of threads may call at once.

    Raises:
        PipelineConfigError: the configuration cannot run, and why.
    """
    document = config if isinstance(config, Mapping) else read_toml(config)
    return Pipe(parse_config(document), engine=engine, rebuild=rebuild)


class Pipe:
    """Runs items through the nodes of a configuration.

    A call takes one item or a list of items, dictionaries with the input under `data`. It returns
    when all are done, and has then put the output under `result`; where an item failed there is
    no `result`, and a NodeError under `error` says which node failed it and why. The other items
    of the call are not affected. `node_name` in an item names the node where it enters; it is
    needed only where the configuration has several nodes that no other leads to. Time spent is
    under `stage_times_ms`.
    """

    def __init__(
        self,
        config: PipelineConfig,
        *,
        engine: str = "auto",
        elsewhere: Mapping[str, RemoteNode] | None = None,
        sources: Mapping[str, BatchSource] | None = None,
        rebuild: RebuildRule = DEFAULT_RULE,
        readiness_changed: Callable[[], None] = lambda: None,
    ) -> None:
        """Start all instances.

        Args:
            config: the nodes.
            engine: as for `pipe`.
            elsewhere: nodes that run in another process, by name.
            sources: where nodes get their items that are not called for here, by name.
            rebuild: as for `pipe`.
            readiness_changed: called whenever `why_not_ready` may say something else, by whichever
                instance has changed that; for nodes of this process.

        Raises:
            PipelineConfigError: a node cannot run; all that was started is stopped.
        """
        self.config = config
        self._graph = config.graph
        self._routes: dict[str, Route] = {}
        jumps = {node.settings["jump"] for node in config.nodes.values() if is_map_reduce(node)}
        roots = [root for root in self._graph.roots if root not in jumps] or self._graph.roots
        self._default_entry = roots[0] if len(roots) == 1 else None
        self.elsewhere = dict(elsewhere or {})
        self.nodes: dict[str, Node | RemoteNode | MapReduceNode] = {**self.elsewhere}
        self.local_nodes = {
            name: Node(node, engine, (sources or {}).get(name), rebuild, readiness_changed)
            for name, node in config.nodes.items()
            if name not in self.nodes and not is_map_reduce(node)
        }
        self.nodes.update(self.local_nodes)
        launch = partial(_launch, self.nodes, self._routes)
        for name, node in config.nodes.items():
            if is_map_reduce(node):
                self.nodes[name] = MapReduceNode(node, launch)
        if self._graph.is_chain and not jumps:
            for name, local in self.local_nodes.items():
                for following in config.nodes[name].place.next:
                    local.connect(self.nodes[following])
        else:
            for name in config.nodes:
                with suppress(PipelineInputError):
                    # Some nodes cannot be entered at; whoever tries is told.
                    self._routes[name] = Route(self._graph, name)
        # Upstream first, so that what a node has queued still finds the next one at work. The
        # instances refer to nodes, never to this object: a pipe that is dropped without close()
        # is stopped when it is collected, and at the latest when the interpreter ends.
        in_order = [self.nodes[name] for name in _stop_order(config)]
        self._finalizer = weakref.finalize(self, _stop, in_order)
        try:
            for started in in_order:
                started.start()
        except BaseException:
            self.close()
            raise

    def __call__(
        self,
        items: CallItem | Sequence[CallItem],
        *,
        timeout_ms: float | None = None,
        has_gone: Callable[[], bool] | None = None,
        raise_on_error: bool = False,
    ) -> None:
        """Run one item or several; see the class.

        Args:
            items: the item, or the items, which are filled in place.
            timeout_ms: longest stay. What is not done by then gets a DeadlinePassedError under
                `error`, and is dropped before its next node. Only what this thread runs itself
                (see `Backend.any_thread`) is first run to its end.
            has_gone: asked before each node, in its instance's thread, whether the one for whom
                this is called has gone; the item gets a DeadlinePassedError then and is dropped.
            raise_on_error: whether to raise when all are done and an item has failed.

        Raises:
            PipelineInputError: an item without `data`, or with a `node_name` that is no node or a
                `request_size` that is no number; nothing was run.
            ItemsFailedError: `raise_on_error`, and at least one item has failed. All are filled
                in, also those that have not.
        """
        if not self._finalizer.alive:
            raise PipelineInputError("the pipeline is closed")
        # First the class that nearly all have: asking for the abstract one takes ten times as long.
        several = [items] if isinstance(items, dict | MutableMapping) else list(items)
        if not several:
            return
        entries = [self._entry(item) for item in several]
        deadline_s = None if timeout_ms is None else time.monotonic() + timeout_ms / 1000
        call = WaitingCall(len(several), deadline_s, has_gone)
        tasks = [Task(_without_outcome(item), call) for item in several]
        last = tasks[-1]
        for task, entry in zip(tasks, entries, strict=True):
            # This thread waits from then on.
            _launch(self.nodes, self._routes, entry, task, caller_waits=task is last)
        call.wait()
        for item, task in zip(several, tasks, strict=True):
            _fill(item, task, timeout_ms)
        if raise_on_error:
            failed = {
                i: item[TASK_ERROR_KEY] for i, item in enumerate(several) if TASK_ERROR_KEY in item
            }
            if failed:
                raise ItemsFailedError(failed, len(several))

    def why_not_ready(self) -> str:
        """Which nodes have no instance that works, since when and why; "" where all have one.

        Meanwhile their items fail at once.
        """
        nodes: list[Node | RemoteNode] = [*self.local_nodes.values(), *self.elsewhere.values()]
        return "; ".join(reason for node in nodes if (reason := node.why_not_ready()))

    def close(self) -> None:
        """Finish what is queued and stop all instances; calling it again does nothing."""
        self._finalizer()

    def __enter__(self) -> Pipe:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _entry(self, item: CallItem) -> str:
        """The name of the node at which an item enters."""
        if TASK_DATA_KEY not in item:
            raise PipelineInputError(f"an item needs {TASK_DATA_KEY!r}, got {sorted(item)}")
        name = item.get(TASK_NODE_NAME_KEY, self._default_entry)
        if name is None:
            raise PipelineInputError(
                f"an item needs {TASK_NODE_NAME_KEY!r}: one of {', '.join(self._graph.roots)}"
            )
        if name not in self.nodes:
            raise PipelineInputError(unknown_name("node", str(name), self.nodes))
        if self._routes and name not in self._routes:
            self._graph.from_entry(name)
        size = item.get(TASK_REQUEST_SIZE_KEY, 1)
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise PipelineInputError(
                f"{TASK_REQUEST_SIZE_KEY} = {size!r}: expected a whole number of at least 1"
            )
        return str(name)


def _without_outcome(item: CallItem) -> dict[str, Any]:
    """A copy of the item without what an earlier call left in it."""
    return {key: value for key, value in item.items() if key not in OUTCOME_KEYS}


def _fill(item: CallItem, task: Task, timeout_ms: float | None) -> None:
    """Give the caller's item what became of it."""
    for key in OUTCOME_KEYS:
        if key in item:
            del item[key]
    if not task.done:
        item[TASK_ERROR_KEY] = DeadlinePassedError(f"not done within timeout_ms = {timeout_ms:g}")
        return
    data = item[TASK_DATA_KEY]
    item.update(task.item)
    item[TASK_DATA_KEY] = data
    item[TASK_STAGE_TIMES_KEY] = task.stage_times_ms
    if task.error is not None:
        item[TASK_ERROR_KEY] = task.error


def _launch(
    nodes: Mapping[str, Node | RemoteNode | MapReduceNode],
    routes: Mapping[str, Route],
    entry: str,
    task: Task,
    *,
    caller_waits: bool = False,
) -> None:
    """Send an item on its way."""
    if not routes:
        nodes[entry].submit(task, caller_waits=caller_waits)
        return
    Flow(routes[entry], task, lambda name, branch: nodes[name].submit(branch)).start()


def _stop_order(config: PipelineConfig) -> list[str]:
    """Nodes such that each stands before those that it hands items to.

    What follows a MapReduce gets its items when the nodes are done that the elements pass.
    """
    following = {name: list(place.next) for name, place in config.graph.places.items()}
    for name, node in config.nodes.items():
        if is_map_reduce(node):
            jump = node.settings["jump"]
            for passed in config.graph.reached(jump):
                following[passed] += config.graph.places[name].next
            following[name].append(jump)
    order: list[str] = []
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name not in seen:
            seen.add(name)
            for other in following[name]:
                visit(other)
            order.append(name)

    for name in following:
        visit(name)
    return order[::-1]


def _stop(nodes: Sequence[Node | RemoteNode | MapReduceNode]) -> None:
    for node in nodes:
        node.stop()
