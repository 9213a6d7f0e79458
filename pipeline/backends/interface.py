"""What a backend is: the code that a node's instances run."""

from __future__ import annotations

import logging
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar, TypeAlias

from interfaces.error_text import in_one_line
from pipeline.backends.decoder_lock import DecoderLock
from pipeline.errors import BackendFailureError, DeadlinePassedError, ItemError
from pipeline.keys import TASK_DATA_KEY, TASK_RESULT_KEY
from pipeline.language.settings import Setting
from service.handlers.outcomes import ImageFailure

logger = logging.getLogger(__name__)

# An item on its way: the caller's keys, with `data` as the input of the current backend.
Item: TypeAlias = dict[str, Any]


@dataclass
class SharedResources:
    """What the instances of one node share, such as a model's weights; made once, by the first."""

    _values: dict[str, Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get_or_create(self, key: str, create: Callable[[], Any]) -> Any:
        """The value under `key`; the first caller makes it while the others wait."""
        with self._lock:
            if key not in self._values:
                self._values[key] = create()
            return self._values[key]

    def get(self, key: str) -> Any:
        """The value under `key`, which some instance has made."""
        with self._lock:
            return self._values[key]

    def close(self) -> None:
        """Close every value that can be closed."""
        with self._lock, ExitStack() as stack:
            for value in reversed(self._values.values()):
                if hasattr(value, "close"):
                    stack.callback(value.close)
            self._values.clear()


def _no_other_node(target: str, division: Any, items: Sequence[Item]) -> None:  # noqa: ARG001
    raise RuntimeError(f"there is no node {target!r}: this backend runs without a graph")


@dataclass(frozen=True)
class InstanceConfig:
    """What one instance of a node is initialised with.

    Attributes:
        node: the node's name.
        settings: typed settings by name, defaults filled in.
        written: all values of the node and its expression as they are written, by key, for
            backends with `takes_all_keys`.
        instance_num: how many instances the node has on this instance's device.
        device_id: number of the GPU, for backends that run on one.
        profile_stages: whether to keep the time of each backend, for which each has to wait for
            the GPU.
        engine: which engine stands behind TensorrtTensor: a provider's name or "auto".
        shared: what the node's instances share.
        offers: what a backend of this instance offers those in front of it, which are initialised
            after it; the one that takes it up removes it.
        decoder_lock: held while one of the node's instances on this device decodes, or None.
        expired: whether the caller of an item of the batch at work has stopped waiting.
        deadline_s: until when its caller waits, on the monotonic clock; infinite for no limit.
        jump: sends items of the batch at work to the node of that name, divided as it is told, and
            waits for them; see `pipeline.backends.map_reduce`.
    """

    node: str
    settings: Mapping[str, Any]
    instance_num: int
    engine: str
    shared: SharedResources
    written: Mapping[str, Any] = field(default_factory=dict)
    device_id: int = 0
    profile_stages: bool = False
    offers: dict[str, Any] = field(default_factory=dict)
    decoder_lock: DecoderLock | None = None
    expired: Callable[[Item], bool] = lambda _: False
    deadline_s: Callable[[Item], float] = lambda _: math.inf
    jump: Callable[[str, Any, Sequence[Item]], None] = _no_other_node


class Backend(ABC):
    """Runs items. One object per instance.

    `init` and `forward` run in that instance's thread, unless it says `any_thread`.

    Attributes:
        settings: the settings that the backend reads.
        takes_all_keys: whether a node with this backend may have any key; the backend gets its
            value as written.
        locks_decoder: whether it decodes with hardware that one instance at a time can use; its
            `forward` releases the lock on that.
        own_settings: those of the expression, `A(key=value)`; they come before the
            node's, for it and for all in its brackets.
        filter: the filter in front of it, `(name)A`, or None.
        can_break: whether what it raises may be its own fault. False for operators that hold
            nothing which could break: there the item is faulty.
        any_thread: whether `forward` may run in any thread, one at a time, and computes in that
            thread; `init` may set it. See `pipeline.runtime.core_pool`.
        min: fewest rows that `forward` wants at once; `init` may set it.
        max: most rows that `forward` takes at once; `init` may set it.
    """

    settings: ClassVar[tuple[Setting, ...]] = ()
    takes_all_keys: ClassVar[bool] = False
    locks_decoder: ClassVar[bool] = False
    own_settings: Mapping[str, Any] = MappingProxyType({})
    filter: str | None = None
    can_break: bool = True
    any_thread: bool = False
    min: int = 1
    max: int = 1

    @property
    def stage(self) -> str:
        """What its time is called, once it is initialised."""
        return type(self).__name__

    @classmethod
    def fitting_instance_num(
        cls,
        instance_num: int,
        settings: Mapping[str, Any],  # noqa: ARG003 (for backends that depend on them)
        engine: str,  # noqa: ARG003
    ) -> int:
        """How many of `instance_num` instances make sense on this host.

        Args:
            instance_num: how many the configuration asks for.
            settings: the node's settings, as `init` gets them.
            engine: the engine's name, or "auto".
        """
        return instance_num

    @classmethod
    def runs_on_gpu(
        cls,
        settings: Mapping[str, Any],  # noqa: ARG003 (for backends that depend on them)
        engine: str,  # noqa: ARG003
    ) -> bool:
        """Whether it enqueues work on a GPU; the arguments are those of `fitting_instance_num`."""
        return False

    @abstractmethod
    def init(self, config: InstanceConfig) -> None:
        """Load what `forward` needs; what an exception leaves unfinished it must free itself.

        An exception fails the load of the whole pipeline, or one attempt to rebuild a broken
        instance.
        """

    @abstractmethod
    def forward(self, items: Sequence[Item]) -> None:
        """Set `result` of every item from its `data`.

        After an exception each item of the call runs once more alone. A backend that can tell
        which item is faulty calls `fail` for it instead, or raises an ItemError.
        """

    def end_pass(self) -> None:  # noqa: B027 (most backends keep nothing of a pass)
        """A batch has left the node, with results that are there.

        See `pipeline.backends.buffer_pool`; called once a batch, however often `forward` ran.
        """

    def close(self) -> None:  # noqa: B027 (most backends hold nothing that must be freed)
        """Free what `init` loaded; runs in the instance's thread."""


def initialise(backend: Backend, config: InstanceConfig) -> None:
    """Initialise a backend with the settings that its expression gives it."""
    if backend.own_settings:
        config = replace(
            config,
            settings={**config.settings, **backend.own_settings},
            written={**config.written, **backend.own_settings},
        )
    backend.init(config)


class ItemBackend(Backend):
    """A backend that turns one item's data into its result, independently of other items."""

    can_break = False

    def init(self, config: InstanceConfig) -> None:
        """Keep nothing by default."""

    def forward(self, items: Sequence[Item]) -> None:
        """Process the items one after the other."""
        for item in items:
            item[TASK_RESULT_KEY] = self.process(item[TASK_DATA_KEY])

    @abstractmethod
    def process(self, data: Any) -> Any:
        """The result for `data`; an exception fails the item."""


class Container(Backend):
    """A backend that runs the backends in its brackets."""

    def __init__(self, inner: Sequence[Backend]) -> None:
        self._inner = tuple(inner)

    def end_pass(self) -> None:
        """End the pass of the inner backends."""
        for backend in self._inner:
            backend.end_pass()

    def close(self) -> None:
        """Close the inner backends, all of them even if one raises."""
        with ExitStack() as stack:
            for backend in reversed(self._inner):
                stack.callback(backend.close)


# The `max` of a backend that takes whatever waits, as torchpipe has it.
ANY_NUMBER = 2**32 - 1
# Under which the engine's backend offers its context to one that fills its input on the GPU.
ENGINE_INPUT_OFFER = "engine_input"
# Where an item keeps the milliseconds of each backend until its node takes them.
PROFILE_KEY = "_profile_ms"
# Where a failed item keeps its exception until its node hands it back.
FAILURE_KEY = "_failure"
# Set where a filter has ended an item that has no result, which is no failure.
ENDED_KEY = "_ended"


def fail(item: Item, cause: BaseException) -> None:
    """Fail one item of a batch and let its neighbours live."""
    item.pop(TASK_RESULT_KEY, None)
    item[FAILURE_KEY] = cause


def forward_isolated(
    backend: Backend, items: Sequence[Item], expired: Callable[[Item], bool]
) -> None:
    """Forward a batch; an exception fails only the item that causes it.

    That holds for what is no Exception, too, such as a Rust panic, CancelledError or SystemExit;
    a KeyboardInterrupt alone is meant for the thread, and is passed on.

    If the call raises, each of its items runs once more, alone, also the one of a batch of one:
    what fails now and then may work the second time. That is the only retry of an item in this
    backend. An expired item is not retried, nor a faulty one: see `_is_items_fault`. The item gets
    what is the backend's fault as a BackendFailureError.

    Args:
        backend: runs the items.
        items: the batch.
        expired: whether an item's caller has stopped waiting for it.
    """
    try:
        backend.forward(items)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 (whatever a backend raises belongs to its items)
        is_items_fault = _is_items_fault(backend, error)
        if is_items_fault and len(items) == 1:
            fail(items[0], error)
            return
        if not is_items_fault:
            logger.warning(
                "%s raised %s; each of its %d items runs once more, alone",
                type(backend).__name__,
                in_one_line(error),
                len(items),
            )
    else:
        return
    for item in items:
        item.pop(FAILURE_KEY, None)
        if expired(item):
            fail(item, BackendFailureError(DeadlinePassedError("dropped before its second try")))
            continue
        try:
            backend.forward([item])
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001
            is_items_fault = _is_items_fault(backend, error)
            fail(item, error if is_items_fault else BackendFailureError(error))


def _is_items_fault(backend: Backend, error: BaseException) -> bool:
    """Whether an exception says nothing about the backend."""
    return not backend.can_break or isinstance(error, ItemError | ImageFailure)


def result_becomes_data(item: Item) -> bool:
    """Hand an item's result on as the next backend's data; False if it has none."""
    if TASK_RESULT_KEY not in item:
        return False
    item[TASK_DATA_KEY] = item.pop(TASK_RESULT_KEY)
    return True
