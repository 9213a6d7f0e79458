"""`Jump` and `MapReduce` at work: the elements of items on their way through other nodes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from pipeline.backends.interface import Item, fail
from pipeline.backends.map_reduce import Division, Jump
from pipeline.config import NodeConfig
from pipeline.errors import DeadlinePassedError, ItemError, NodeError
from pipeline.runtime.task import Call, Task

# Sends a task on its way from the node of that name.
Launch: TypeAlias = Callable[[str, Task], None]

# Of one item at the same time: enough for any batch, and little memory for a list of any length.
_MOST_ELEMENTS = 1024


class _Elements(Call):
    """The elements of one item, some of them on their way.

    The next ones are launched as others are done, and none after one has failed: their item has
    failed with it.

    Args:
        target: the node at which they enter.
        division: how they are made and merged.
        item: the item, which gets what they have become.
        parent: the item's call.
        launch: sends them on their way.
        done: is told once, why the item has failed, or None.
    """

    def __init__(
        self,
        target: str,
        division: Division,
        item: Item,
        parent: Call,
        launch: Launch,
        done: Callable[[Exception | None], None],
    ) -> None:
        self._target = target
        self._division = division
        self._item = item
        self._parent = parent
        self._launch = launch
        self._done = done
        self._lock = threading.Lock()
        self._is_launching = False
        self._count = self._launched = self._active = 0
        self._kept: list[Any] = []
        self._failures: dict[int, Exception] = {}
        self.caller = parent.caller
        self.deadline_s = parent.deadline_s

    def start(self) -> None:
        """Launch the first elements."""
        try:
            self._count = self._division.count(self._item)
        except ItemError as error:
            self._done(error)
            return
        self._kept = [None] * self._count
        self._is_launching = True
        self._launch_more()

    def expired(self) -> bool:
        """Whether the caller has stopped waiting for the item."""
        return self._parent.expired()

    def item_done(self, task: Task) -> None:
        """Keep what one element has become, and launch others in its place."""
        assert isinstance(task, _Element)  # noqa: S101 (it launches no other tasks)
        error, kept = task.error, None
        if error is None:
            try:
                kept = self._division.kept(task.item)
            except ItemError as missing:
                error = missing
        with self._lock:
            self._active -= 1
            self._kept[task.index] = kept
            if error is not None:
                self._failures[task.index] = error
            # Tasks may be done while they are launched: that loop goes on, and not a deeper one.
            if self._is_launching:
                return
            self._is_launching = True
        self._launch_more()

    def _launch_more(self) -> None:
        """Launch what may be on its way; where nothing is, and nothing more is to come, end."""
        while True:
            with self._lock:
                is_over = self._launched == self._count or bool(self._failures)
                if is_over or self._active == _MOST_ELEMENTS:
                    self._is_launching = False
                    if self._active:
                        return
                    break
                index = self._launched
                self._launched += 1
                self._active += 1
            try:
                element = _Element(self._division.element(self._item, index), self, index)
                if index and self.expired():
                    raise DeadlinePassedError("dropped before it was sent")
            except Exception as error:  # noqa: BLE001 (keys and values may be anything)
                with self._lock:
                    self._active -= 1
                    self._failures[index] = error
            else:
                self._launch(self._target, element)
        self._finish()

    def _finish(self) -> None:
        if self._failures:
            index = min(self._failures)
            self._done(self._division.blame(index, self._failures[index]))
            return
        self._division.merge(self._item, self._kept)
        self._done(None)


class _Element(Task):
    """One element on its way, and its place among the others."""

    __slots__ = ("index",)

    def __init__(self, item: Item, call: Call, index: int) -> None:
        super().__init__(item, call)
        self.index = index


class JumpNode:
    """A `Jump` or `MapReduce` that is a node by itself; no thread waits for what it sends.

    Args:
        config: the node's configuration.
        launch: sends a task on its way from the node of that name.
    """

    def __init__(self, config: NodeConfig, launch: Launch) -> None:
        self.name = config.name
        (backend,) = config.backends()
        assert issubclass(backend.cls, Jump)  # noqa: S101 (`NodeConfig.is_jump`)
        self._division = backend.cls.division(backend.settings)
        (self._target,) = config.jumps
        self._launch = launch

    def start(self) -> None:
        """Nothing to start."""

    def submit(
        self,
        task: Task,
        *,
        caller_waits: bool = False,  # noqa: ARG002
        wakes: bool = True,  # noqa: ARG002
    ) -> None:
        """Launch the elements of one item."""

        def done(error: Exception | None) -> None:
            if error is not None and not isinstance(error, NodeError):
                error = NodeError(self.name, error)
            task.finish(error)

        _Elements(self._target, self._division, task.item, task.call, self._launch, done).start()

    def stop(self) -> None:
        """Nothing to stop."""


def jump_and_wait(
    launch: Launch, target: str, division: Division, items: Sequence[tuple[Item, Call]]
) -> None:
    """Send the elements of several items on their way, and wait for all of them.

    Args:
        launch: sends a task on its way from the node of that name.
        target: the node at which they enter.
        division: how they are made and merged.
        items: each with its call; `fail` has been called for those that have failed.
    """
    left = threading.Semaphore(0)

    def done_with(item: Item) -> Callable[[Exception | None], None]:
        def done(error: Exception | None) -> None:
            if error is not None:
                fail(item, error)
            left.release()

        return done

    for item, call in items:
        _Elements(target, division, item, call, launch, done_with(item)).start()
    for _ in items:
        left.acquire()
