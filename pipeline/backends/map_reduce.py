"""`Jump` and `MapReduce`: items, or the elements of their lists, take a way through other nodes.

As a node by itself each is run by `pipeline.runtime.map_reduce`, without an instance that waits.
Inside of other backends, as in `S[Detect,MapReduce]`, the instance waits for what it sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from interfaces.names import shown
from pipeline.backends.interface import ANY_NUMBER, PROFILE_KEY, Backend, InstanceConfig, Item
from pipeline.backends.registry import register
from pipeline.errors import ElementError, ItemError, PipelineConfigError
from pipeline.keys import TASK_DATA_KEY, TASK_REQUEST_SIZE_KEY, TASK_RESULT_KEY
from pipeline.language.expression import Expression
from pipeline.language.settings import Setting, read_names, read_text

_JUMPS = ("Jump", "JumpV0", "MapReduce")
_TARGET = "jump"
# What an element does not get of its item; nor does an item that jumps.
_OF_ITEM_ALONE = frozenset({TASK_REQUEST_SIZE_KEY, PROFILE_KEY})


class Division:
    """How an item becomes elements, and how these become the item again.

    This one sends the item itself on its way: there is one element.

    Attributes:
        merge_keys: the keys of the elements that become lists of the item.
    """

    merge_keys: tuple[str, ...] = ()

    def count(self, item: Item) -> int:  # noqa: ARG002 (it depends on the item elsewhere)
        """How many elements an item has.

        Raises:
            ItemError: it cannot be divided.
        """
        return 1

    def element(self, item: Item, index: int) -> Item:  # noqa: ARG002
        """One element: a copy of the item, which counts for one row of a batch."""
        return {key: value for key, value in item.items() if key not in _OF_ITEM_ALONE}

    def kept(self, element: Item) -> Any:
        """What `merge` needs of an element that is done.

        Raises:
            ItemError: the element lacks it.
        """
        return element

    def merge(self, item: Item, kept: Sequence[Any]) -> None:
        """Put into the item what was kept of its elements, in their order."""
        item.update(kept[0])

    def blame(self, index: int, error: Exception) -> Exception:  # noqa: ARG002
        """Why an item fails one of whose elements has failed."""
        return error


@dataclass(frozen=True)
class ListDivision(Division):
    """Divides the lists under some keys, side by side, and collects what is under others.

    Attributes:
        split: the keys of the lists; where there are none, the item is its own only element.
    """

    split: tuple[str, ...] = ()
    merge_keys: tuple[str, ...] = ()

    def count(self, item: Item) -> int:
        """The length that the lists have in common; see the base class."""
        lengths = {key: len(self._list(item, key)) for key in self.split}
        if len(set(lengths.values())) > 1:
            text = ", ".join(f"{key!r} {length}" for key, length in lengths.items())
            raise ItemError(f"the lists to split need one length, got {text}")
        return next(iter(lengths.values()), 1)

    def element(self, item: Item, index: int) -> Item:
        """A copy of the item with one element of each list in its place."""
        copy = super().element(item, index)
        copy.update({key: item[key][index] for key in self.split})
        return copy

    def kept(self, element: Item) -> Any:
        """The values to merge, and the whole element where that is the item itself."""
        for key in self.merge_keys:
            if key not in element:
                raise ItemError(f"it has no {key!r} to merge: it has {_keys(element)}")
        return element if not self.split else {key: element[key] for key in self.merge_keys}

    def merge(self, item: Item, kept: Sequence[Any]) -> None:
        """Put the lists of values into the item."""
        if not self.split:
            super().merge(item, kept)
        item.update({key: [values[key] for values in kept] for key in self.merge_keys})

    def blame(self, index: int, error: Exception) -> Exception:
        """Which element failed, and why."""
        return ElementError(index, error)

    def _list(self, item: Item, key: str) -> Sequence[Any]:
        if key not in item:
            raise ItemError(f"the item has no {key!r} to split: it has {_keys(item)}")
        value = item[key]
        if not isinstance(value, list | tuple):
            hint = f"; list(...) makes one of its {len(value)} rows" if _has_rows(value) else ""
            raise ItemError(
                f"split = {key!r}: expected a list of elements, got {type(value).__name__}{hint}"
            )
        return value


@register("Jump", "JumpV0")
class Jump(Backend):
    """Sends items through the node that `jump` names, and those behind it.

    An item goes on with all that it has got there. `Jump[NODE]` is `Jump(jump=NODE)`.
    """

    settings: ClassVar[tuple[Setting, ...]] = (
        Setting(
            _TARGET,
            read_text,
            "the node where the items enter",
            help="where items go on",
            example="classify",
        ),
    )

    @classmethod
    def division(cls, settings: Mapping[str, Any]) -> Division:  # noqa: ARG003 (it takes none)
        """How items become what is sent."""
        return Division()

    def init(self, config: InstanceConfig) -> None:
        """Know the way."""
        self._division = self.division(config.settings)
        self._target: str = config.settings[_TARGET]
        self._jump = config.jump
        self.max = ANY_NUMBER

    def forward(self, items: Sequence[Item]) -> None:
        """Send all, and wait for them; what fails on its way fails its item alone."""
        self._jump(self._target, self._division, items)


@register("MapReduce")
class MapReduce(Jump):
    """Sends the elements of lists through other nodes, and merges what comes back.

    `jump` names the node where they enter. Each is a copy of the item with the elements in place of
    the lists under the keys that `split` names; `merge` names the keys of the elements whose values
    become lists of the item.
    """

    settings: ClassVar[tuple[Setting, ...]] = (
        *Jump.settings,
        Setting(
            "split",
            lambda value: read_names(value) if value != "" else (),
            'keys of the item that have lists, with commas between; "" for the item itself',
            (TASK_DATA_KEY,),
            help="the keys whose lists are taken apart",
        ),
        Setting(
            "merge",
            read_names,
            "keys of an element, with commas between",
            (TASK_RESULT_KEY,),
            help="the keys that get lists of what comes back",
        ),
    )

    @classmethod
    def division(cls, settings: Mapping[str, Any]) -> Division:
        """By the keys that the settings name."""
        return ListDivision(settings["split"], settings["merge"])


def with_jumps_as_settings(expression: Expression) -> Expression:
    """The expression with `Jump(jump=NODE)` for each `Jump[NODE]`, whose brackets name a node.

    Raises:
        PipelineConfigError: several nodes in the brackets, or another one in the parentheses.
    """
    inner = expression.arguments
    if expression.name not in _JUMPS or not inner:
        return replace(expression, arguments=tuple(map(with_jumps_as_settings, inner)))
    target = inner[0].name
    if len(inner) > 1 or inner[0] != Expression(target):
        raise PipelineConfigError(f"{expression.name} takes one node in its brackets: {expression}")
    given = dict(expression.settings)
    if given.setdefault(_TARGET, target) != target:
        raise PipelineConfigError(
            f"{expression.name} has two ways to go: jump = {shown(given[_TARGET])}, and "
            f"[{target}] in its brackets"
        )
    return replace(expression, arguments=(), settings=tuple(given.items()))


def _keys(item: Item) -> str:
    return ", ".join(sorted(map(str, item)))


def _has_rows(value: Any) -> bool:
    """Whether it is an array or tensor, which can be a list of its rows."""
    return bool(getattr(value, "ndim", 0))
