"""One call of a pipeline, and its items on their way through the nodes."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from interfaces.error_text import in_one_line
from pipeline.backends.interface import Item
from pipeline.keys import TASK_DATA_KEY, TASK_REQUEST_SIZE_KEY

logger = logging.getLogger(__name__)

# Of callers that are no threads, whose numbers are larger. The one that came free last is taken
# first, so that no more are in use than calls are under way.
_begun_numbers = itertools.count(1)
_free_numbers: list[int] = []


class Call(ABC):
    """The call that an item belongs to.

    Attributes:
        caller: the number of its caller; queues are fair between callers.
        caller_waits: whether the caller's thread waits for the call's end.
        is_alone: whether no other item of that caller can wait beside this call's one item.
        is_suspect: whether it was at work when an engine process ended; one such item at a time
            is at work.
        deadline_s: until when its caller waits, on the monotonic clock; None for no limit.
        after_batch: called once after a batch that had items of this call, or None.
    """

    caller: int
    caller_waits: bool = False
    is_alone: bool = False
    is_suspect: bool = False
    deadline_s: float | None
    after_batch: Callable[[], None] | None = None

    @abstractmethod
    def item_done(self, task: Task) -> None:
        """Nothing changes the item any more. Never raises: other items' outcomes follow."""

    def begin(self) -> None:  # noqa: B027 (few want to know)
        """Its item leaves in a batch, from a node that gets its items from another process."""

    def expired(self) -> bool:
        """Whether the caller has stopped waiting for the items."""
        return self.deadline_s is not None and time.monotonic() >= self.deadline_s


def tell_of_batch(batch: Sequence[Task]) -> None:
    """Call what is to be called once after a batch."""
    if len(batch) == 1:
        if (after_batch := batch[0].call.after_batch) is not None:
            after_batch()
        return
    told = []
    for task in batch:
        after_batch = task.call.after_batch
        if after_batch is not None and after_batch not in told:
            told.append(after_batch)
            after_batch()


class WaitingCall(Call):
    """What the items of one call share: the calling thread waits for the last of them.

    That thread is its caller. In the service each connection has one.

    Args:
        count: how many items there are.
        deadline_s: as the attribute.
        has_gone: whether the one for whom the caller waits has gone. It is asked whenever a node
            is about to work on an item; None where that cannot be known.
        item_done: is told of each item of a call of several, with its error or None. What it raises
            is logged.
    """

    caller_waits = True

    def __init__(
        self,
        count: int,
        deadline_s: float | None,
        has_gone: Callable[[], bool] | None = None,
        item_done: Callable[[Exception | None], None] | None = None,
    ) -> None:
        self.is_alone = count == 1
        if not self.is_alone:
            self._remaining = count
            self._lock = threading.Lock()
        # A plain lock, held until all items are done: waiting for it takes one call.
        self._gate = threading.Lock()
        self._gate.acquire()
        self._all_done: Callable[[], object] = self._gate.release
        self.caller = threading.get_ident()
        self.deadline_s = deadline_s
        self._has_gone = has_gone
        self._item_done = item_done

    def expired(self) -> bool:
        """Whether the deadline has passed, or the one behind the caller has gone."""
        deadline_s, has_gone = self.deadline_s, self._has_gone
        if deadline_s is not None and time.monotonic() >= deadline_s:
            return True
        if has_gone is None:
            return False
        try:
            return has_gone()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 (whatever the caller's function raises)
            logger.warning("has_gone raised %s; the item is run", in_one_line(error))
            return False

    def item_done(self, task: Task) -> None:
        """Count one item; the last one wakes the caller."""
        # What a backend last got, such as a whole image, must not stay until the others are done.
        task.item.pop(TASK_DATA_KEY, None)
        if self.is_alone:
            self._all_done()
            return
        try:
            if self._item_done is not None:
                self._item_done(task.error)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 (whatever the caller's function raises)
            logger.warning("item_done raised %s; the item has its outcome", in_one_line(error))
        finally:
            with self._lock:
                self._remaining -= 1
                last = self._remaining == 0
            if last:
                self._all_done()

    def wait(self) -> None:
        """Block until all items are done or the deadline has passed."""
        if self.deadline_s is None:
            self._gate.acquire()
        else:
            self._gate.acquire(timeout=max(0.0, self.deadline_s - time.monotonic()))


class BegunCall(WaitingCall):
    """A call of one or several items whose thread does not wait: it may begin others meanwhile.

    Until it is over it is a caller of its own. The next one is the same caller again: if each were
    one that has had no turn yet, what further items wait of others would never have theirs.

    Args:
        count, deadline_s, has_gone, item_done: as for a `WaitingCall`.
        all_done: called once the last of them is done, in an instance's thread. Must not raise.
    """

    caller_waits = False

    def __init__(
        self,
        count: int,
        deadline_s: float | None,
        has_gone: Callable[[], bool] | None,
        item_done: Callable[[Exception | None], None] | None,
        all_done: Callable[[], None],
    ) -> None:
        super().__init__(count, deadline_s, has_gone, item_done)
        try:
            self.caller = _free_numbers.pop()
        except IndexError:
            self.caller = next(_begun_numbers)
        self._all_done = all_done

    def end(self) -> None:
        """It is over: nobody is told of it any more. To be called once."""
        _free_numbers.append(self.caller)


class StartedCall(Call):
    """A call of one item for which no thread waits.

    Its caller is the thread that has begun it, which may have begun others meanwhile.

    Args:
        finished: is given the item's task when it is done.
    """

    def __init__(self, finished: Callable[[Task], None]) -> None:
        self.caller = threading.get_ident()
        self.deadline_s = None
        self._finished = finished

    def item_done(self, task: Task) -> None:
        """Tell of the item; what its caller's function raises is only logged."""
        task.item.pop(TASK_DATA_KEY, None)
        try:
            self._finished(task)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 (whatever the caller's function raises)
            logger.warning("the callback of a submitted item raised %s", in_one_line(error))


class Task:
    """One item of a call.

    Attributes:
        item: a copy of the caller's item, so that work that ends after the call's deadline never
            touches what the caller holds.
        call: the call that it belongs to.
        began_s: when it entered its first node's queue, on the monotonic clock; 0 before that.
        queued_at_s: when it entered the current node's queue.
        stage_times_ms: "NODE.queue" and "NODE.forward" of every node passed.
        rows: for how many rows of a batch it counts: its `request_size`, or 1.
        done: True once nothing changes the item any more.
        error: why it has no result, or None.
    """

    __slots__ = (
        *("began_s", "call", "done", "error", "item", "queued_at_s", "rows", "stage_times_ms"),
    )

    def __init__(self, item: Item, call: Call) -> None:
        self.item = item
        self.call = call
        self.rows: int = item.get(TASK_REQUEST_SIZE_KEY, 1)
        self.began_s = self.queued_at_s = 0.0
        self.stage_times_ms: dict[str, float] = {}
        self.done = False
        self.error: Exception | None = None

    def finish(self, error: Exception | None = None) -> None:
        """The item's way ends here."""
        self.error = error
        self.done = True
        self.call.item_done(self)
