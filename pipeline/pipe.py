"""`pipe(...)`: a configuration turned into a thread-safe callable."""

from __future__ import annotations

import time
import weakref
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

from engine.names import unknown_name
from pipeline.config import PipelineConfig, parse_config, read_toml
from pipeline.engine_process.remote_node import RemoteNode
from pipeline.errors import DeadlinePassedError, PipelineInputError
from pipeline.keys import (
    TASK_DATA_KEY,
    TASK_ERROR_KEY,
    TASK_NODE_NAME_KEY,
    TASK_RESULT_KEY,
    TASK_STAGE_TIMES_KEY,
)
from pipeline.node import BatchSource, Node
from pipeline.task import Task, WaitingCall

CallItem: TypeAlias = MutableMapping[str, Any]
OUTCOME_KEYS = (TASK_RESULT_KEY, TASK_ERROR_KEY, TASK_STAGE_TIMES_KEY)


def pipe(config: str | Path | Mapping[str, Any], *, engine: str = "auto") -> Pipe:
    """Load a pipeline.

    Args:
        config: a TOML file, or its content as a dictionary.
        engine: what runs the model behind TensorrtTensor: a provider's name, or "auto".

    Returns:
        A callable that any number of threads may call at once.

    Raises:
        PipelineConfigError: the configuration cannot run, and why.
    """
    document = config if isinstance(config, Mapping) else read_toml(config)
    return Pipe(parse_config(document), engine=engine)


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
    ) -> None:
        """Start all instances.

        Args:
            config: the nodes.
            engine: as for `pipe`.
            elsewhere: nodes that run in another process, by name.
            sources: where nodes get their items that are not called for here, by name.

        Raises:
            PipelineConfigError: a node cannot run; all that was started is stopped.
        """
        self.config = config
        roots = config.roots()
        self._default_entry = roots[0] if len(roots) == 1 else None
        self.elsewhere = dict(elsewhere or {})
        self.nodes: dict[str, Node | RemoteNode] = {**self.elsewhere}
        self.local_nodes = {
            name: Node(node, engine, (sources or {}).get(name))
            for name, node in config.nodes.items()
            if name not in self.nodes
        }
        self.nodes.update(self.local_nodes)
        for name, node in self.local_nodes.items():
            if (following := config.nodes[name].next) is not None:
                node.connect(self.nodes[following])
        # Upstream first, so that what a node has queued still finds the next one at work. The
        # instances refer to nodes, never to this object: a pipe that is dropped without close()
        # is stopped when it is collected, and at the latest when the interpreter ends.
        in_order = [self.nodes[name] for name in _upstream_first(config)]
        self._finalizer = weakref.finalize(self, _stop, in_order)
        try:
            for started in in_order:
                started.start()
        except BaseException:
            self.close()
            raise

    def __call__(
        self, items: CallItem | Sequence[CallItem], *, timeout_ms: float | None = None
    ) -> None:
        """Run one item or several; see the class.

        Args:
            items: the item, or the items, which are filled in place.
            timeout_ms: longest stay. What is not done by then gets a DeadlinePassedError under
                `error`, and is dropped before its next node.

        Raises:
            PipelineInputError: an item without `data`, or with a `node_name` that is no node;
                nothing was run.
        """
        if not self._finalizer.alive:
            raise PipelineInputError("the pipeline is closed")
        several = [items] if isinstance(items, MutableMapping) else list(items)
        if not several:
            return
        entries = [self._entry(item) for item in several]
        deadline_s = None if timeout_ms is None else time.monotonic() + timeout_ms / 1000
        call = WaitingCall(len(several), deadline_s)
        tasks = [Task(_without_outcome(item), call) for item in several]
        for task, entry in zip(tasks, entries, strict=True):
            entry.submit(task)
        call.wait()
        for item, task in zip(several, tasks, strict=True):
            _fill(item, task, timeout_ms)

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

    def _entry(self, item: CallItem) -> Node | RemoteNode:
        if TASK_DATA_KEY not in item:
            raise PipelineInputError(f"an item needs {TASK_DATA_KEY!r}, got {sorted(item)}")
        name = item.get(TASK_NODE_NAME_KEY, self._default_entry)
        if name is None:
            raise PipelineInputError(
                f"an item needs {TASK_NODE_NAME_KEY!r}: one of {', '.join(self.config.roots())}"
            )
        if name not in self.nodes:
            raise PipelineInputError(unknown_name("node", str(name), self.nodes))
        return self.nodes[name]


def _without_outcome(item: CallItem) -> dict[str, Any]:
    """A copy of the item without what an earlier call left in it."""
    return {key: value for key, value in item.items() if key not in OUTCOME_KEYS}


def _fill(item: CallItem, task: Task, timeout_ms: float | None) -> None:
    """Give the caller's item what became of it."""
    for key in OUTCOME_KEYS:
        item.pop(key, None)
    if not task.done:
        item[TASK_ERROR_KEY] = DeadlinePassedError(f"not done within timeout_ms = {timeout_ms:g}")
        return
    data = item[TASK_DATA_KEY]
    item.update(task.item)
    item[TASK_DATA_KEY] = data
    item[TASK_STAGE_TIMES_KEY] = task.stage_times_ms
    if task.error is not None:
        item[TASK_ERROR_KEY] = task.error


def _upstream_first(config: PipelineConfig) -> list[str]:
    """Node names such that each stands before the one that follows it in the graph."""

    def steps_to_end(name: str) -> int:
        following = config.nodes[name].next
        return 0 if following is None else 1 + steps_to_end(following)

    return sorted(config.nodes, key=steps_to_end, reverse=True)


def _stop(nodes: Sequence[Node | RemoteNode]) -> None:
    for node in nodes:
        node.stop()
