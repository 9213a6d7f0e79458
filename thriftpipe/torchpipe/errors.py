"""What the package raises, and which of its own errors torchpipe raises in the same place."""

from __future__ import annotations

from types import TracebackType

from pipeline.errors import (
    ElementError,
    NodeError,
    NoResultError,
    PipelineConfigError,
    PipelineInputError,
)
from service.handlers.outcomes import InvalidImageError

# A frame of one of these: a class or function of the user's was at work.
_USERS_CODE = ("pipeline.backends.python_backend", "thriftpipe.torchpipe.registration")


class NotHereError(ImportError, RuntimeError):
    """A name of torchpipe that cannot exist here; the message says what to use instead."""


class ConfigError(PipelineConfigError, RuntimeError):
    """A configuration that cannot run."""


class MissingFileError(ConfigError, FileNotFoundError):
    """A configuration's file is not there: v0 raises a RuntimeError, main a FileNotFoundError."""


class InputError(PipelineInputError, IndexError, RuntimeError):
    """A call that no configuration accepts; nothing of it was run."""


class BackendError(RuntimeError):
    """A node failed an item, by code of this project's.

    Attributes:
        node: the node's name.
        cause: what its backend raised.
    """

    def __init__(self, error: NodeError) -> None:
        super().__init__(str(error))
        self.node = error.node
        self.cause = error.cause


def raised_for(error: Exception) -> Exception | None:
    """What torchpipe's caller gets for an item that failed; None where it gets nothing.

    What a backend or filter in Python has raised is raised as it is. An image that cannot be
    decoded, and a backend that gave no result, raise nothing: the item then has no result. Of an
    element of a list all is raised, as its result is missed when the elements are merged.
    """
    if not isinstance(error, NodeError):
        return error
    innermost, is_elements = _innermost(error)
    cause = innermost.cause
    if not is_elements:
        if isinstance(cause, NoResultError):
            return None
        if isinstance(cause, InvalidImageError) and not isinstance(cause.__cause__, TypeError):
            return None
    if isinstance(cause, Exception) and _is_users(cause.__traceback__):
        return cause
    raised = BackendError(error if is_elements else innermost)
    raised.__cause__ = cause
    return raised


def _innermost(error: NodeError) -> tuple[NodeError, bool]:
    """The error of the node where it began, and whether that node had an element of a list."""
    is_elements = False
    while True:
        cause: BaseException = error.cause
        if isinstance(cause, ElementError):
            is_elements, cause = True, cause.error
        if not isinstance(cause, NodeError):
            return error, is_elements
        error = cause


def _is_users(traceback: TracebackType | None) -> bool:
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__") in _USERS_CODE:
            return True
        traceback = traceback.tb_next
    return False
