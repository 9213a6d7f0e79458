"""`MapReduce`: the elements of a list, each through other nodes, and their results as a list."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pipeline.backends.map_reduce import MAP_REDUCE
from pipeline.config import NodeConfig
from pipeline.errors import NodeError
from pipeline.keys import TASK_DATA_KEY, TASK_RESULT_KEY
from pipeline.runtime.task import Call, Task


def is_map_reduce(node: NodeConfig) -> bool:
    """Whether a node runs no backend, but sends elements to other nodes."""
    return node.backend.name == MAP_REDUCE


class _Elements(Call):
    """The elements of one item."""

    def __init__(self, node: str, merge: str, whole: Task, count: int) -> None:
        self._node = node
        self._merge = merge
        self._whole = whole
        self._left = count
        self._lock = threading.Lock()
        self.tasks: list[Task] = []
        self.caller = whole.call.caller
        self.deadline_s = whole.call.deadline_s

    def expired(self) -> bool:
        """Whether the caller has stopped waiting for the item."""
        return self._whole.call.expired()

    def item_done(self, task: Task) -> None:  # noqa: ARG002 (whichever it is)
        """Count one element; the last one ends the item."""
        with self._lock:
            self._left -= 1
            is_last = self._left == 0
        if is_last:
            self.finish()

    def finish(self) -> None:
        """Give the item the results of all, or the failure of the first element that failed."""
        for position, task in enumerate(self.tasks):
            if task.error is not None:
                cause = ValueError(f"element {position}: {task.error}")
                self._whole.finish(NodeError(self._node, cause))
                return
        self._whole.item[self._merge] = [task.item.get(TASK_RESULT_KEY) for task in self.tasks]
        self._whole.finish()


class MapReduceNode:
    """Sends the elements of items to another node and waits for none of them.

    Args:
        config: the node's configuration.
        launch: sends a task on its way from the node of that name.
    """

    def __init__(self, config: NodeConfig, launch: Callable[[str, Task], None]) -> None:
        self.name = config.name
        self._settings = config.settings
        self._launch = launch

    def start(self) -> None:
        """Nothing to start."""

    def submit(self, task: Task, *, caller_waits: bool = False) -> None:  # noqa: ARG002
        """Launch one task an element."""
        elements = task.item.get(self._settings["split"])
        if not isinstance(elements, list | tuple):
            cause = TypeError(
                f"split = {self._settings['split']!r}: expected a list of elements, got "
                f"{type(elements).__name__}"
            )
            task.finish(NodeError(self.name, cause))
            return
        call = _Elements(self.name, self._settings["merge"], task, len(elements))
        call.tasks = [Task({TASK_DATA_KEY: element}, call) for element in elements]
        if not elements:
            call.finish()
        for element in call.tasks:
            self._launch(self._settings["jump"], element)

    def stop(self) -> None:
        """Nothing to stop."""
