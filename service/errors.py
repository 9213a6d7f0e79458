"""The error of a wrong configuration, and errors that are kept as results."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import FrameType

# Such a frame may go on later.
_PAUSES = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class ConfigurationError(Exception):
    """A setting, model or configuration that cannot work. The message is one line for the user."""


def forget_frames(error: BaseException) -> None:
    """Drop the tracebacks of an exception and of those behind it.

    A frame that holds the exception is a cycle with it, and everything else in it, such as images,
    would stay until the garbage collector comes by.
    """
    for one in _with_those_behind(error):
        one.__traceback__ = None


def forget_variables(error: BaseException) -> None:
    """Drop the variables of all calls that an exception and those behind it have ended.

    Their tracebacks stay. A traceback keeps the frames that the exception passed, each of which
    keeps that of its caller, and with them all that they worked on, such as images on a GPU: for as
    long as the exception, and often in a cycle with it.
    """
    for one in _with_those_behind(error):
        traceback = one.__traceback__
        if traceback is not None:
            _clear_with_callers(traceback.tb_frame.f_back)
        while traceback is not None:
            _clear(traceback.tb_frame)
            traceback = traceback.tb_next


def _clear_with_callers(frame: FrameType | None) -> None:
    while frame is not None and _clear(frame):
        frame = frame.f_back


def _clear(frame: FrameType) -> bool:
    """Drop a frame's variables; False where it is still at work."""
    if frame.f_code.co_flags & _PAUSES:
        return False
    try:
        frame.clear()
    except RuntimeError:
        return False
    return True


def _with_those_behind(error: BaseException) -> Iterator[BaseException]:
    """The exception, its causes, and those that were being handled."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__cause__, one.__context__]
