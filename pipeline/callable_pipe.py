"""`pipe(...)`: a configuration turned into a thread-safe callable."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

from engine.cpu.cores import available_cores
from pipeline.backends.interface import ENDED_KEY
from pipeline.config import PipelineConfig, parse_config
from pipeline.engine_process.remote_node import RemoteNode
from pipeline.errors import DeadlinePassedError, ItemsFailedError, PipelineInputError
from pipeline.keys import (
    TASK_DATA_KEY,
    TASK_ERROR_KEY,
    TASK_RESULT_KEY,
    TASK_RESULTS_KEY,
    TASK_STAGE_TIMES_KEY,
)
from pipeline.language.document import read_toml
from pipeline.runtime.active_calls import ActiveCalls
from pipeline.runtime.batch_runner import ResultCheck
from pipeline.runtime.batch_source import BatchSource
from pipeline.runtime.core_pool import CorePool
from pipeline.runtime.instance import Loading
from pipeline.runtime.network import AnyNode, Network, stop_order
from pipeline.runtime.node import Node
from pipeline.runtime.parts import PLAIN_PARTS, Parts
from pipeline.runtime.pooled_queue import PooledQueue
from pipeline.runtime.task import BegunCall, StartedCall, Task, WaitingCall
from service.handlers.restart_policy import DEFAULT_POLICY, RestartPolicy
from service.handlers.this_thread import THIS_THREAD

logger = logging.getLogger(__name__)

CallItem: TypeAlias = MutableMapping[str, Any]
OUTCOME_KEYS = frozenset((TASK_RESULT_KEY, TASK_RESULTS_KEY, TASK_ERROR_KEY, TASK_STAGE_TIMES_KEY))


def pipe(
    config: str | Path | Mapping[str, Any],
    *,
    engine: str = "auto",
    rebuild: RestartPolicy = DEFAULT_POLICY,
    ignore_unknown_keys: bool = False,
) -> Pipe:
    """Load a pipeline.

    Args:
        config: a TOML file, or its content as a dictionary.
        engine: what runs the model behind TensorrtTensor: a provider's name, or "auto".
        rebuild: when an instance counts as broken, and how soon it is rebuilt.
        ignore_unknown_keys: whether a key that neither this project nor torchpipe reads is
            ignored, which the log says.

    Returns:
        A callable that any number of threads may call at once.

    Raises:
        PipelineConfigError: the configuration cannot run, and why.
    """
    document = config if isinstance(config, Mapping) else read_toml(config)
    parsed = parse_config(document, ignore_unknown_keys=ignore_unknown_keys)
    for warning in parsed.warnings:
        logger.warning("%s", warning)
    return Pipe(parsed, engine=engine, rebuild=rebuild)


class Pipe:
    """Runs items through the nodes of a configuration.

    A call takes one item or a list of items, dictionaries with the input under `data`. It returns
    when all are done, and has then put the output under `result`; where an item failed there is
    no `result`, and a NodeError under `error` says which node failed it and why. The other items
    of the call are not affected. `node_name` in an item names the node where it enters; it is
    needed only if the configuration has several first nodes, and ignored if it has one node. An
    item that a filter's Break or skip ends before it has a result has neither. Time spent is under
    `stage_times_ms`.
    """

    def __init__(
        self,
        config: PipelineConfig,
        *,
        engine: str = "auto",
        elsewhere: Mapping[str, RemoteNode] | None = None,
        sources: Mapping[str, BatchSource] | None = None,
        rebuild: RestartPolicy = DEFAULT_POLICY,
        readiness_changed: Callable[[], None] = lambda: None,
        loading: Loading = nullcontext,
        check_result: ResultCheck | None = None,
        parts: Parts = PLAIN_PARTS,
    ) -> None:
        """Start all instances.

        Args:
            config: the nodes.
            engine: as for `pipe`.
            elsewhere: nodes that run in another process, by name.
            sources: where nodes get their items that are not called for here, by name.
            rebuild: as for `pipe`.
            readiness_changed: called by an instance of this process after a change of what
                `why_not_ready` says.
            loading: entered in the instance's thread while an instance is built.
            check_result: raises if callers cannot use a result; that fails the item and counts
                against the instance, as an exception of its backend does.
            parts: make what the nodes of this process consist of.

        Raises:
            PipelineConfigError: a node cannot run; all that was started is stopped.
        """
        self.config = config
        self.elsewhere = dict(elsewhere or {})
        self._pool = CorePool(available_cores())
        self.local_nodes = {
            name: Node(
                node,
                engine,
                (sources or {}).get(name),
                rebuild,
                readiness_changed,
                loading,
                # What another node gets may be anything.
                None if config.leads_on(name) else check_result,
                parts,
                self._pool,
            )
            for name, node in config.with_instances.items()
            if name not in self.elsewhere and not node.is_jump
        }
        self._network = Network(config, {**self.elsewhere, **self.local_nodes})
        self.nodes = self._network.nodes
        # Upstream first, so that what a node has queued still finds the next one at work. The
        # instances refer to nodes, never to this object: a pipe that is dropped without close()
        # is stopped when it is collected, and at the latest when the interpreter ends.
        # A node stands there once for each name that it has.
        in_order = list(dict.fromkeys(self.nodes[name] for name in stop_order(config)))
        self._pool.arrange(_before(config, self.nodes))
        self._calls = ActiveCalls()
        self._finalizer = weakref.finalize(self, _stop, self._calls, in_order, self._pool)
        try:
            for node in in_order:
                node.start()
        except BaseException:
            self.close()
            raise
        # Of the nodes with one instance: by what a thread's work for it is known, and the entries
        # that lead to it for sure.
        self._waits_for_itself: dict[object, frozenset[str]] = {
            node.work: self._network.always_runs(node)
            for node in self.local_nodes.values()
            if len(node.threads) == 1
        }

    def __call__(
        self,
        items: CallItem | Sequence[CallItem],
        *,
        timeout_ms: float | None = None,
        has_gone: Callable[[], bool] | None = None,
        item_done: Callable[[Exception | None], None] | None = None,
        raise_on_error: bool = False,
    ) -> None:
        """Run one item or several; see the class.

        Args:
            items: the item, or the items, which are filled in place.
            timeout_ms: longest stay. What is not done by then gets a DeadlinePassedError under
                `error`, and is dropped before its next node. Only what this thread runs itself
                (see `Backend.any_thread`) is first run to its end.
            has_gone: whether the caller has disconnected; asked before each node, in its
                instance's thread. The item then gets a DeadlinePassedError and is dropped.
            item_done: called for each of several items when it is done, with its error or None, in
                any thread. What it raises is logged.
            raise_on_error: whether to raise when all are done and an item has failed.

        Raises:
            PipelineInputError: what is no item, an item without `data`, or with a `node_name` that
                is no node or a `request_size` that is no number, or the pipeline is closed, or it
                is called by the one instance that would have to run the item; nothing was run.
            ItemsFailedError: `raise_on_error`, and at least one item has failed. All are filled
                in, also those that have not.
        """
        # First the class that nearly all have: asking for the abstract one takes ten times as long.
        several = [items] if isinstance(items, dict | MutableMapping) else _listed(items)
        if not several:
            return
        entries = [self._network.entry(item) for item in several]
        deadline_s = None if timeout_ms is None else time.monotonic() + timeout_ms / 1000
        call = WaitingCall(len(several), deadline_s, has_gone, item_done)
        if call.caller in self._waits_for_itself:
            self._check_waits_for_others(call.caller, entries)
        works_for = THIS_THREAD.works_for
        if works_for is not None and works_for in self._waits_for_itself:
            self._check_waits_for_others(works_for, entries)
        tasks = [Task(_without_outcome(item), call) for item in several]
        last = tasks[-1]
        self._calls.begin(call)
        try:
            for task, entry in zip(tasks, entries, strict=True):
                # This thread waits from then on.
                self._network.launch(entry, task, caller_waits=task is last)
            with THIS_THREAD.waits():
                call.wait()
        finally:
            self._calls.end(call)
        for item, task in zip(several, tasks, strict=True):
            _fill(item, task, timeout_ms)
        if raise_on_error:
            failed = {
                i: item[TASK_ERROR_KEY] for i, item in enumerate(several) if TASK_ERROR_KEY in item
            }
            if failed:
                raise ItemsFailedError(failed, len(several))

    def begin(
        self,
        items: Sequence[CallItem],
        done: Callable[[], None],
        *,
        timeout_ms: float | None = None,
        has_gone: Callable[[], bool] | None = None,
        item_done: Callable[[Exception | None], None] | None = None,
    ) -> Callable[[], None]:
        """Send the items of a call on their way, and return at once.

        Args:
            items: at least one.
            done: called when the last item is done, in an instance's thread: it must neither wait
                nor raise. Not when the time is over.
            timeout_ms: as for a call.
            has_gone: as for a call.
            item_done: as for a call.

        Returns:
            What fills the items, and has to be called once: when `done` was, or the time is over.

        Raises:
            PipelineInputError: as for a call; nothing was run, and `done` is not called.
        """
        entries = [self._network.entry(item) for item in items]
        deadline_s = None if timeout_ms is None else time.monotonic() + timeout_ms / 1000
        call = BegunCall(len(items), deadline_s, has_gone, item_done, done)
        tasks = [Task(_without_outcome(item), call) for item in items]
        self._calls.begin(call)
        try:
            for task, entry in zip(tasks, entries, strict=True):
                self._network.launch(entry, task)
        except BaseException:
            self._calls.end(call)
            call.end()
            raise

        def fill() -> None:
            self._calls.end(call)
            call.end()
            for item, task in zip(items, tasks, strict=True):
                _fill(item, task, timeout_ms)

        return fill

    def submit(self, item: CallItem, done: Callable[[], None]) -> None:
        """Send an item on its way, and return at once; it is filled as by a call.

        Args:
            item: nothing else may change it until `done` is called.
            done: called when the item is filled, in an instance's thread: it must not wait for
                this pipe. What it raises is logged.

        Raises:
            PipelineInputError: as for a call; nothing was run, and `done` is not called.
        """
        entry = self._network.entry(item)
        calls = self._calls

        def finish(task: Task) -> None:
            _fill(item, task, None)
            calls.end(call)
            done()

        call = StartedCall(finish)
        task = Task(_without_outcome(item), call)
        calls.begin(call)
        try:
            self._network.launch(entry, task)
        except BaseException:
            calls.end(call)
            raise

    def check(self, item: CallItem) -> None:
        """Raise a PipelineInputError where a call with that item would, but run nothing."""
        self._network.entry(item)

    def why_not_ready(self) -> str:
        """Which nodes have no instance that works, since when and why; "" where all have one.

        Meanwhile their items fail at once.
        """
        nodes: list[Node | RemoteNode] = [*self.local_nodes.values(), *self.elsewhere.values()]
        reasons = [node.why_not_ready() for node in nodes]
        if not any(reasons):
            reasons.append(self._why_no_core())
        return "; ".join(filter(None, reasons))

    def _why_no_core(self) -> str:
        pooled = [node for node in self.local_nodes.values() if node.is_pooled]
        stuck = sum(node.stuck_instances for node in pooled)
        if stuck < self._pool.cores:
            return ""
        return (
            f"each of {self._pool.cores} cores has been at work on one batch for far longer than "
            f"usual, of nodes {', '.join(node.name for node in pooled if node.stuck_instances)}"
        )

    def close(self) -> None:
        """Wait for the calls under way and stop all instances; calling it again does nothing.

        Raises:
            PipelineInputError: it is called in an instance's thread or in a call of the pipeline,
                such as by a backend, a filter or what was given to a call: it would wait for
                itself. Nothing is closed.
        """
        if self._finalizer.alive:
            self._check_may_wait()
        self._finalizer()
        self._waits_for_itself = {}

    def _check_may_wait(self) -> None:
        """PipelineInputError in a thread whose work `close` would wait for."""
        thread = threading.current_thread()
        names = [name for name, node in self.local_nodes.items() if thread in node.threads]
        is_worker = thread in self._pool.threads
        if names or is_worker or self._calls.holds_up(threading.get_ident()):
            what = f"an instance of node {names[0]!r}" if names else "a call of the pipeline"
            what = "a worker of the pipeline" if is_worker else what
            raise PipelineInputError(
                f"close() was called in the thread of {what}, for whose end it would wait: call it "
                "in another thread, such as the one that has loaded the pipeline"
            )

    def _check_waits_for_others(self, work: object, entries: Sequence[str]) -> None:
        """PipelineInputError within the work of the one instance that would run an item."""
        for name in self._waits_for_itself[work].intersection(entries):
            raise PipelineInputError(
                f"node {name!r} has one instance, and that has called its own pipeline with an "
                f"item for {name!r}: it would wait for itself. Call another pipe, or connect nodes "
                "by next, map or jump"
            )

    def __enter__(self) -> Pipe:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _listed(items: Sequence[CallItem]) -> list[CallItem]:
    """The items of a call for several; PipelineInputError says what is none."""
    if not isinstance(items, Iterable) or isinstance(items, Mapping | str | bytes):
        raise _no_items(type(items).__name__)
    several = list(items)
    for item in several:
        if not isinstance(item, dict | MutableMapping):
            raise _no_items(f"a list with {type(item).__name__}")
    return several


def _no_items(found: str) -> PipelineInputError:
    return PipelineInputError(
        f"a call takes a dictionary or a list of dictionaries, which it fills in, got {found}"
    )


def _without_outcome(item: CallItem) -> dict[str, Any]:
    """A copy of the item without what an earlier call left in it."""
    copy = dict(item)
    _remove_outcome(copy)
    return copy


def _remove_outcome(item: CallItem) -> None:
    if not OUTCOME_KEYS.isdisjoint(item):
        for key in OUTCOME_KEYS:
            item.pop(key, None)


def _fill(item: CallItem, task: Task, timeout_ms: float | None) -> None:
    """Give the caller's item what became of it."""
    _remove_outcome(item)
    if not task.done:
        item[TASK_ERROR_KEY] = DeadlinePassedError(f"not done within timeout_ms = {timeout_ms:g}")
        return
    data = item[TASK_DATA_KEY]
    item.update(task.item)
    # What a backend may have put there is no outcome.
    item.pop(TASK_ERROR_KEY, None)
    item.pop(ENDED_KEY, None)
    item[TASK_DATA_KEY] = data
    item[TASK_STAGE_TIMES_KEY] = task.stage_times_ms
    if task.error is not None:
        item[TASK_ERROR_KEY] = task.error


def _before(
    config: PipelineConfig, nodes: Mapping[str, AnyNode]
) -> dict[PooledQueue, frozenset[PooledQueue]]:
    """The queues of the nodes on the CPU, and for each those that items come from to it."""
    queues = {
        name: node.pooled
        for name, node in nodes.items()
        if isinstance(node, Node) and node.pooled is not None
    }
    return {
        queue: frozenset(
            other
            for name, other in queues.items()
            if other is not queue
            and any(queues.get(passed) is queue for passed in config.graph.reached(name))
        )
        for queue in queues.values()
    }


def _stop(calls: ActiveCalls, nodes: Sequence[AnyNode], pool: CorePool) -> None:
    calls.close()
    for node in nodes:
        node.stop()
    pool.close()
