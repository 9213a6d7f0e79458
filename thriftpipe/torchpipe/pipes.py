"""`pipe` and `Interpreter`: configurations turned into callables, with torchpipe's habits."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from types import TracebackType
from typing import Any, TypeAlias

import pipeline
from interfaces.error_text import in_one_line
from pipeline.callable_pipe import Pipe
from pipeline.errors import PipelineConfigError, PipelineInputError
from pipeline.keys import TASK_DATA_KEY, TASK_ERROR_KEY, TASK_EVENT_KEY, TASK_RESULT_KEY
from service.handlers.restart_policy import RestartPolicy
from thriftpipe.torchpipe.configuration import document_of, own_engine, read_file
from thriftpipe.torchpipe.errors import BackendError, ConfigError, InputError, raised_for
from thriftpipe.torchpipe.event import Event
from thriftpipe.torchpipe.item import make_text

logger = logging.getLogger(__name__)

Item: TypeAlias = MutableMapping[str, Any]
# torchpipe takes no instance out of service: what a backend raises is of its batch alone, also when
# the first items of a program are all bad.
_NEVER_BROKEN = RestartPolicy(failures=sys.maxsize)
ANY_NUMBER = 2**32 - 1
"""`max()` of what splits calls of any length up into batches."""


class Interpreter:
    """A pipeline that is loaded by `init`; `pipe` loads it at once."""

    def __init__(self) -> None:
        self._loaded: Pipe | None = None
        self._range = (1, ANY_NUMBER)

    def init(self, config: object) -> None:
        """Load a configuration, in one of the forms of `pipe`.

        Raises:
            ConfigError: it cannot run, and why.
        """
        if self._loaded is not None:
            raise ConfigError("the interpreter is loaded already: make another Interpreter()")
        try:
            document = document_of(config)
            self._loaded = pipeline.pipe(document, rebuild=_NEVER_BROKEN, ignore_unknown_keys=True)
        except ConfigError:
            raise
        except PipelineConfigError as error:
            raise ConfigError(str(error)) from error
        nodes = list(self._loaded.local_nodes.values())
        if len(nodes) == 1 and own_engine(document):
            self._range = nodes[0].batch_range

    def init_from_toml(self, toml_path: str) -> None:
        """Load a TOML file."""
        self.init(read_file(toml_path))

    def __call__(self, data: Item | Sequence[Item]) -> None:
        """Run one item or several, which are filled in place.

        An item with an `Event` under `event` is filled later; the event says when. Several items
        without one are run together, and the call returns when all are done.

        Raises:
            InputError: an item cannot enter; nothing was run, and its events tell of it, too.
            TypeError: data is neither an item nor a list of them, or what an item has under
                `event` is an event of another kind; nothing was run.
            ValueError: an event was used before; nothing was run.
            Exception: what a backend in Python raised for an item; a BackendError for what other
                backends raised. All items are filled in, also those that have not failed.
        """
        items = [data] if isinstance(data, MutableMapping) else data
        if not _are_items(items):
            raise TypeError(f"a pipe takes a dict, or a list of dicts, got {type(data).__name__}")
        pipe = self._pipe()
        with_event = [(item, event) for item in items if (event := _event_of(item)) is not None]
        waited_for = [item for item in items if _event_of(item) is None] if with_event else items
        if with_event:
            _submit_all(pipe, with_event, waited_for)
        if not waited_for:
            return
        try:
            pipe(waited_for)
        except PipelineInputError as error:
            raise InputError(str(error)) from error
        raised = [_finish(item) for item in waited_for]
        for one in raised:
            if one is not None:
                raise one

    def max(self) -> int:
        """Most items of a call."""
        self._pipe()
        return self._range[1]

    def min(self) -> int:
        """Fewest items of a call."""
        self._pipe()
        return self._range[0]

    def close(self) -> None:
        """Wait for the calls under way, and stop all nodes; dropping the object does it, too."""
        if self._loaded is not None:
            self._loaded.close()

    def _pipe(self) -> Pipe:
        if self._loaded is None:
            raise ConfigError("the interpreter is not loaded: call init(config) first")
        return self._loaded


class pipe(Interpreter):  # noqa: N801 (torchpipe's name)
    """A configuration as a callable that any number of threads may call at once.

    Args:
        config: a TOML file; a dictionary of nodes, or with the settings of one; or a backend
            expression.

    Attributes:
        config: what it was made of.

    Raises:
        ConfigError: the configuration cannot run, and why.
    """

    def __init__(self, config: object) -> None:
        super().__init__()
        self.config = config
        self.init(config)

    def __call__(self, data: Any = None, **keys: Any) -> Any:
        """Run one item or several, which are filled in place, or the data of one.

        Args:
            data: an item or a list of items, as for an `Interpreter`; anything else is the data
                of one item, whose result is returned.
            keys: what each item gets besides; without `data` they are the item.

        Raises:
            TypeError: some of a list are items, but not all.
            Exception: as an `Interpreter`; where a result is to be returned, also for an item
                that has none.
        """
        items = [data] if isinstance(data, MutableMapping) else data
        if _are_items(items):
            for item in items if keys else ():
                item.update(keys)
            super().__call__(data)
            return None
        if isinstance(data, list | tuple) and any(isinstance(one, Mapping) for one in data):
            raise TypeError(
                "a pipe takes a dict, or a list of dicts, or the data of one item, got a list of "
                "dicts and others"
            )
        item = keys if data is None else {TASK_DATA_KEY: data, **keys}
        super().__call__(item)
        if TASK_RESULT_KEY not in item:
            raise _no_result(item)
        return item[TASK_RESULT_KEY]

    def __enter__(self) -> pipe:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _are_items(data: object) -> bool:
    return isinstance(data, list | tuple) and all(isinstance(one, MutableMapping) for one in data)


def _event_of(item: Item) -> Event | None:
    """The event of an item, if it has one; TypeError if that is of another kind."""
    event = item.get(TASK_EVENT_KEY)
    if isinstance(event, Event):
        return event
    if hasattr(event, "wait"):
        raise TypeError(
            f"{TASK_EVENT_KEY!r} holds a {type(event).__name__}: expected a torchpipe.Event"
        )
    return None


def _submit_all(
    pipe: Pipe, with_event: Sequence[tuple[Item, Event]], others: Sequence[Item]
) -> None:
    """Begin the items with an event of a call, once all items of that are known to be good.

    Args:
        pipe: runs them.
        with_event: those items, each with its event.
        others: the other items of the call, which are only checked.

    Raises:
        InputError: an item cannot enter. The events are told, too.
        ValueError: an event was used before.
    """
    left = list(with_event)
    for position, (_, event) in enumerate(left):
        try:
            event.begin()
        except ValueError:
            for _, begun in left[:position]:
                begun.give_back()
            raise
    try:
        for item in (*(item for item, _ in left), *others):
            pipe.check(item)
        while left:
            _submit(pipe, *left[0])
            del left[0]
    except PipelineInputError as error:
        raised = InputError(str(error))
        for _, event in left:
            event.item_done(raised)
        raise raised from error


def _submit(pipe: Pipe, item: Item, event: Event) -> None:
    """Begin an item; its event is told when it is filled."""
    # What waits for the event may look at the item meanwhile.
    own = {key: value for key, value in item.items() if key != TASK_EVENT_KEY}
    item.pop(TASK_RESULT_KEY, None)

    def done() -> None:
        raised = _finish(own)
        item.update(own)
        event.item_done(raised)

    pipe.submit(own, done)


def _finish(item: Item) -> Exception | None:
    """What the caller of a filled item gets raised, if anything."""
    make_text(item)
    if TASK_ERROR_KEY not in item:
        return None
    error: Exception = item[TASK_ERROR_KEY]
    raised = raised_for(error)
    if raised is None:
        logger.warning("an item has no result: %s", in_one_line(error))
    return raised


def _no_result(item: Item) -> Exception:
    error = item.get(TASK_ERROR_KEY)
    if isinstance(error, pipeline.NodeError):
        return BackendError(error)
    return RuntimeError(f"the item has no result, only {', '.join(sorted(map(str, item)))}")
