"""One item's way through a graph that is more than a chain."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.backends.filters import (
    DEFAULT_FILTER,
    FIRST_FILTER,
    FilterError,
    PlacedFilter,
    Status,
    decide,
    end,
    place_filter,
)
from pipeline.backends.interface import ENDED_KEY, FAILURE_KEY, Item
from pipeline.errors import NodeError, PipelineConfigError
from pipeline.keys import TASK_CONTEXT_KEY, TASK_RESULT_KEY, TASK_RESULTS_KEY
from pipeline.language.graph import Graph
from pipeline.runtime.task import Call, Task

Submit = Callable[[str, Task], None]


@dataclass(frozen=True)
class _Step:
    """What a flow has to know of a node.

    Attributes:
        next: the nodes that follow it.
        needed: the nodes that have to be done before it.
        filter: its filter.
        serial_part: what SERIAL_SKIP skips.
        independent_part: what SUBGRAPH_SKIP skips.
    """

    next: tuple[str, ...]
    needed: frozenset[str]
    filter: PlacedFilter
    serial_part: frozenset[str]
    independent_part: frozenset[str]


class Route:
    """The part of a graph that items pass which enter at one node.

    Args:
        graph: all nodes.
        entry: where the items enter.
        keys: the settings of each node, as the file has them.

    Raises:
        PipelineInputError: items cannot enter there.
        PipelineConfigError: a filter cannot be made.
    """

    def __init__(self, graph: Graph, entry: str, keys: Mapping[str, Mapping[str, Any]]) -> None:
        self.graph = graph
        self.entry = entry
        names = graph.from_entry(entry)
        self.steps: dict[str, _Step] = {}
        for name in names:
            place = graph.places[name]
            is_first = name == entry or bool(place.mapping)
            filter_name = place.filter or (FIRST_FILTER if is_first else DEFAULT_FILTER)
            try:
                placed = place_filter(filter_name, keys[name])
            except PipelineConfigError as error:
                raise PipelineConfigError(f"[{name}] {error}") from error
            self.steps[name] = _Step(
                place.next,
                frozenset(graph.predecessors[name]) | {m.source for m in place.mapping},
                placed,
                graph.serial_part(name),
                graph.independent_part(name),
            )
        self.ends = [name for name in graph.places if name in names and not graph.places[name].next]


class _Branch(Task):
    """An item in one node."""

    __slots__ = ("node",)

    def __init__(self, item: Item, flow: Flow, node: str, times_ms: dict[str, float]) -> None:
        super().__init__(item, flow)
        self.began_s = flow.began_s
        self.stage_times_ms = times_ms
        self.node = node


class Flow(Call):
    """Sends one item from node to node, side by side where the graph forks, and joins what comes.

    The item's copies share nothing but the caller's values. It is done when no node works on it any
    more: after its ends, after a filter's BREAK, or after a failure that no filter takes up.

    Args:
        route: its way.
        whole: the item as its call knows it; gets the outcome.
        submit: hands a task to a node.

    Attributes:
        began_s: when its way began, on the monotonic clock.
    """

    def __init__(self, route: Route, whole: Task, submit: Submit) -> None:
        self._route = route
        self._whole = whole
        self._submit = submit
        self._lock = threading.Lock()
        self._begun = {route.entry}
        self._left: dict[str, Item] = {}
        self._active = 1
        self._final: Item | None = None
        self._ended_at = route.entry
        self._error: Exception | None = None
        self.began_s = time.monotonic()
        self.caller = whole.call.caller
        self.deadline_s = whole.call.deadline_s

    def expired(self) -> bool:
        """Whether the caller has stopped waiting for the item."""
        return self._whole.call.expired()

    def start(self) -> None:
        """Let the item enter, as the entry's filter wants."""
        entry = self._route.entry
        item = dict(self._whole.item)
        if self._route.steps[entry].filter.name == FIRST_FILTER:
            begun = [(entry, item)]
        else:
            # No other thread knows of the item yet.
            begun = []
            try:
                begun, skipped = self._decide(entry, item)
                begun += self._follow(skipped)
            except Exception as error:  # noqa: BLE001 (keys and values may be anything)
                self._error = _as_node_error(entry, error)
            self._active = len(begun)
        self._submit_all(begun)
        if not begun:
            self._finish()

    def item_done(self, task: Task) -> None:
        """A node has finished one branch: go on from there."""
        assert isinstance(task, _Branch)  # noqa: S101 (flows make no other tasks)
        with self._lock:
            begun: list[tuple[str, Item]] = []
            if self._final is None and self._error is None:
                item = task.item
                if task.error is not None:
                    item.pop(TASK_RESULT_KEY, None)
                    item[FAILURE_KEY] = task.error
                try:
                    begun = self._go_on(task.node, item)
                except Exception as error:  # noqa: BLE001 (keys and values may be anything)
                    self._error = _as_node_error(task.node, error)
            self._active += len(begun) - 1
            is_over = self._active == 0
        self._submit_all(begun)
        if is_over:
            self._finish()

    def _submit_all(self, begun: Sequence[tuple[str, Item]]) -> None:
        for node, item in begun:
            self._submit(node, _Branch(item, self, node, self._whole.stage_times_ms))

    def _go_on(self, node: str, item: Item) -> list[tuple[str, Item]]:
        """The nodes that can begin now that one is left, each with its item; none at an end."""
        self._left[node] = item
        return self._follow([node])

    def _follow(self, nodes: Iterable[str]) -> list[tuple[str, Item]]:
        """The nodes that can begin now that some are left, each with its item; none at an end."""
        begun: list[tuple[str, Item]] = []
        left = deque(nodes)
        while left:
            name = left.popleft()
            following = self._route.steps[name].next
            if not following and FAILURE_KEY in self._left[name]:
                self._error = self._left[name][FAILURE_KEY]
                return []
            for other in following:
                step = self._route.steps[other]
                if other in self._begun or not step.needed <= self._left.keys():
                    continue
                self._begun.add(other)
                try:
                    own = self._input(other)
                except NodeError as error:
                    self._error = error
                    return []
                running, skipped = self._decide(other, own)
                if self._final is not None or self._error is not None:
                    return []
                begun += running
                left += skipped
        return begun

    def _decide(self, name: str, item: Item) -> tuple[list[tuple[str, Item]], list[str]]:
        """Ask the filter of a node: what begins, and the nodes that are left without having run."""
        status = decide(self._route.steps[name].filter, item)
        if status is Status.RUN:
            return [(name, item)], []
        if status is Status.BREAK:
            end(self._route.steps[name].filter.name, item)
            self._final = item
            self._ended_at = name
        elif status is Status.ERROR:
            self._error = NodeError(name, item[FAILURE_KEY])
        else:
            return [], self._skip(name, status, item)
        return [], []

    def _skip(self, name: str, status: Status, item: Item) -> list[str]:
        """Leave a node, and the part of the graph that is skipped with it, with the same item."""
        step = self._route.steps[name]
        part = frozenset({name})
        if status is Status.SERIAL_SKIP:
            part = step.serial_part
        elif status is Status.SUBGRAPH_SKIP:
            part = step.independent_part
        for member in part:
            self._begun.add(member)
            self._left[member] = item
        return list(part)

    def _input(self, name: str) -> Item:
        """The item that a node gets; NodeError if what it needs is not there."""
        mapping = self._route.graph.places[name].mapping
        if not mapping:
            return dict(self._left[self._route.graph.predecessors[name][0]])
        item: Item = {}
        for mapped in mapping:
            source = self._left[mapped.source]
            if FAILURE_KEY in source:
                raise _as_node_error(mapped.source, source[FAILURE_KEY])
            if mapped.taken not in source:
                raise NodeError(
                    name,
                    LookupError(
                        f"its map takes {mapped.taken!r} from {mapped.source!r}, which has "
                        f"{', '.join(sorted(map(str, source)))}"
                    ),
                )
            item[mapped.given] = source[mapped.taken]
            if TASK_CONTEXT_KEY in source:
                item.setdefault(TASK_CONTEXT_KEY, source[TASK_CONTEXT_KEY])
        return item

    def _finish(self) -> None:
        """Give the caller's item what became of it."""
        whole, error = self._whole, self._error
        if error is None:
            item = self._final if self._final is not None else self._at_the_end()
            error = item.pop(FAILURE_KEY, None)
            has_ended = self._final is not None and ENDED_KEY not in item
            if error is None and has_ended and TASK_RESULT_KEY not in item:
                error = FilterError("a filter ended the item's way, and it had no result")
            whole.item = item
        whole.finish(None if error is None else _as_node_error(self._ended_at, error))

    def _at_the_end(self) -> Item:
        """The item of the one end, or the caller's with the results of all."""
        ends = self._route.ends
        if len(ends) == 1:
            return self._left[ends[0]]
        results: Mapping[str, Any] = {
            end: self._left[end][TASK_RESULT_KEY]
            for end in ends
            if TASK_RESULT_KEY in self._left[end]
        }
        return {**self._whole.item, TASK_RESULTS_KEY: dict(results)}


def _as_node_error(node: str, error: Exception) -> NodeError:
    return error if isinstance(error, NodeError) else NodeError(node, error)
