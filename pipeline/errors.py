"""What can go wrong when a pipeline is loaded, called or run."""

from __future__ import annotations

from collections.abc import Mapping

from interfaces.error_text import what_it_says


class PipelineConfigError(ValueError):
    """A configuration that cannot run; the message names the node, the key and a way out."""


class MissingHereError(PipelineConfigError):
    """A configuration that may run elsewhere: this host lacks a package or a GPU."""


class PipelineInputError(ValueError):
    """A call with arguments that no configuration accepts; nothing of it was run."""


class NodeError(Exception):
    """Why one item got no result. It stands under `TASK_ERROR_KEY` of that item alone.

    Attributes:
        node: name of the node in which the item failed.
        cause: what the node's backend raised.
    """

    def __init__(self, node: str, cause: BaseException) -> None:
        super().__init__(f"node {node!r}: {what_it_says(cause)}")
        self.node = node
        self.cause = cause


class ItemsFailedError(Exception):
    """Items of a call with `raise_on_error` failed.

    Attributes:
        errors: why, by the item's position in the call.
    """

    def __init__(self, errors: Mapping[int, Exception], count: int) -> None:
        position, first = next(iter(errors.items()))
        super().__init__(
            f"{len(errors)} of {count} items failed, the first of them item {position}: {first}"
        )
        self.errors = dict(errors)


class ItemError(ValueError):
    """Raised by a backend for a faulty input: the backend itself works.

    It is not tried again with that item alone, and does not count towards taking the instance out
    of service.
    """


class ElementError(ItemError):
    """An element of an item has failed, and its item with it; see `MapReduce`.

    Attributes:
        index: the element's place in its list.
        error: why it failed, a NodeError unless it lacks what is merged.
    """

    def __init__(self, index: int, error: Exception) -> None:
        super().__init__(f"element {index}: {error}")
        self.index = index
        self.error = error


class NoResultError(RuntimeError):
    """A backend raised nothing, and gave an item no result."""


class BackendFailureError(Exception):
    """What a backend raised that should have worked, on its way to the node.

    Attributes:
        cause: what it raised.
    """

    def __init__(self, cause: BaseException) -> None:
        super().__init__(what_it_says(cause))
        self.cause = self.__cause__ = cause


class NoInstanceError(Exception):
    """All instances of the node are broken and being rebuilt."""


class ClosedError(Exception):
    """The pipeline was closed before the item reached its next node."""


class DeadlinePassedError(Exception):
    """The item was not finished within the time limit of its call."""
