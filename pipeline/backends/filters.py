"""Filters: what becomes of an item before a backend of a sequence, or a node of the graph.

Names and meaning are those of torchpipe v0.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias, TypeVar

from interfaces.error_text import in_one_line
from pipeline.backends.interface import ENDED_KEY, FAILURE_KEY, Item, fail, result_becomes_data
from pipeline.errors import PipelineConfigError
from pipeline.keys import TASK_DATA_KEY, TASK_RESULT_KEY
from pipeline.language.torchpipe_names import unknown_filter


class Status(Enum):
    """What a filter decides.

    Attributes:
        RUN: the backend runs.
        SKIP: it does not; the item goes on as the filter has left it.
        SERIAL_SKIP: nor do the nodes that follow in a row, up to where the graph forks or joins.
            In a sequence the same as BREAK.
        SUBGRAPH_SKIP: nor does whatever can be reached through it alone. In a sequence the same as
            BREAK.
        BREAK: the item is finished as the filter has left it: with the whole graph, or with its
            sequence.
        ERROR: the item fails.
    """

    RUN = "Run"
    SKIP = "Skip"
    SERIAL_SKIP = "SerialSkip"
    SUBGRAPH_SKIP = "SubGraphSkip"
    BREAK = "Break"
    ERROR = "Error"
    # torchpipe's spellings of the same.
    Run = RUN
    Skip = SKIP
    SerialSkip = SERIAL_SKIP
    SubGraphSkip = SUBGRAPH_SKIP
    Break = BREAK
    Error = ERROR


Filter: TypeAlias = Callable[[Item], Status]
DEFAULT_FILTER = "swap"
"""For all but the first of a sequence, roots, and nodes with a `map`."""
FIRST_FILTER = "Run"
"""For these."""
# They hand on a result, and end an item that has none.
_SWAPPING = frozenset({DEFAULT_FILTER, "result2other", "result2key_1"})

_Filter = TypeVar("_Filter", bound="Filter | type")

_FILTERS: dict[str, Filter | type] = {}


@dataclass(frozen=True)
class PlacedFilter:
    """A filter before one backend of a sequence, or before one node of the graph.

    Attributes:
        name: its name.
        function: decides, in any thread.
    """

    name: str
    function: Filter


class FilterError(Exception):
    """A filter decided that an item fails."""


def register_filter(*names: str) -> Callable[[_Filter], _Filter]:
    """Make a filter known under its names.

    It is a function of an item, which it may change. It sees items without a `result` too: those
    that have failed, and those whose backend gave none. Or it is a class with `forward(item)` and,
    if it wants the settings of its node as the file has them, `init(config)`: it has an object at
    each place where the filter stands.

    Raises:
        TypeError: it is neither.
        ValueError: a name is taken.
    """

    def add(function: _Filter) -> _Filter:
        if isinstance(function, type) and not callable(getattr(function, "forward", None)):
            raise TypeError(f"{function.__name__} has no forward(item), which a filter needs")
        for name in names:
            if name in _FILTERS:
                raise ValueError(f"filter {name!r} is registered already")
            _FILTERS[name] = function
        return function

    return add


def filter_named(name: str) -> Filter | type:
    """The filter of that name; PipelineConfigError names the closest if there is none."""
    try:
        return _FILTERS[name]
    except KeyError:
        raise PipelineConfigError(unknown_filter(name, _FILTERS)) from None


def registered_filters() -> dict[str, Filter | type]:
    """Every filter by each of its names."""
    return dict(_FILTERS)


def place_filter(name: str, keys: Mapping[str, Any]) -> PlacedFilter:
    """The filter of that name for one place.

    Args:
        name: its name.
        keys: the settings of its node, as the file has them.

    Raises:
        PipelineConfigError: there is none of that name, or its class or `init` raises.
    """
    registered = filter_named(name)
    if not inspect.isclass(registered):
        return PlacedFilter(name, registered)
    try:
        made: Any = registered()
        if hasattr(made, "init"):
            made.init(dict(keys))
    except Exception as error:
        raise PipelineConfigError(f"filter {name!r}: {in_one_line(error)}") from error
    return PlacedFilter(name, made.forward)


def decide(placed: PlacedFilter, item: Item) -> Status:
    """Ask a filter. An item that is to run has no result and no failure any more.

    A filter that raises, or that says ERROR, fails the item; the status is then ERROR.
    """
    name = placed.name
    try:
        status = placed.function(item)
        if not isinstance(status, Status):
            raise TypeError(f"filter {name!r} gave {status!r}, expected a pipeline.Status")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 (whatever a filter raises belongs to the item)
        fail(item, error)
        return Status.ERROR
    if status is Status.RUN:
        for key in (TASK_RESULT_KEY, FAILURE_KEY, ENDED_KEY):
            item.pop(key, None)
    elif status is Status.ERROR:
        fail(item, FilterError(f"filter {name!r} gave Error"))
    return status


def end(name: str, item: Item) -> None:
    """End an item's way, as that filter has decided: no failure, even if it has no result.

    It is one if the filter swaps: it ends what the backend before gave no result.
    """
    if name not in _SWAPPING and item.keys().isdisjoint((TASK_RESULT_KEY, FAILURE_KEY)):
        item[ENDED_KEY] = True


@register_filter("swap")
def _swap(item: Item) -> Status:
    """The result becomes the data; an item without one is finished."""
    return Status.RUN if result_becomes_data(item) else Status.BREAK


@register_filter("result2other")
def _result_to_other(item: Item) -> Status:
    """As swap, and the data stays under `other` for later backends and maps."""
    return _swap_and_keep(item, "other")


@register_filter("result2key_1")
def _result_to_key_1(item: Item) -> Status:
    """As swap, and the data stays under `key_1`."""
    return _swap_and_keep(item, "key_1")


def _swap_and_keep(item: Item, key: str) -> Status:
    status = _swap(item)
    if status is Status.RUN:
        item[key] = item[TASK_DATA_KEY]
    return status


@register_filter("or", "else")
def _or(item: Item) -> Status:
    """Runs for those without a result, with the data that the backend before had."""
    return Status.SKIP if TASK_RESULT_KEY in item else Status.RUN


def _constant(status: Status, description: str) -> Filter:
    """A filter that always decides the same."""

    def decide_always(item: Item) -> Status:  # noqa: ARG001 (it makes no difference)
        return status

    decide_always.__doc__ = description
    return decide_always


def _register_constants() -> None:
    for status, description, *names in (
        (Status.RUN, "Runs, with the data as it is.", "Run", "run", "Continue", "continue"),
        (Status.SKIP, "Does not run; the item goes on with what it has.", "Skip", "skip"),
        (
            Status.SERIAL_SKIP,
            "Skips it and the nodes behind it in a row, up to where the graph forks or joins.",
            "SerialSkip",
            "serial_skip",
            "serialskip",
        ),
        (
            Status.SUBGRAPH_SKIP,
            "Skips it and every node that can be reached through it alone.",
            "SubGraphSkip",
            "subgraph_skip",
            "subgraphskip",
        ),
        (Status.BREAK, "The item is finished, with the whole graph.", "Break", "break"),
        (Status.ERROR, "The item fails.", "Error", "error"),
    ):
        register_filter(*names)(_constant(status, description))


_register_constants()
