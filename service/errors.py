"""The error of a wrong configuration, and errors that are kept as results."""

from __future__ import annotations


class ConfigurationError(Exception):
    """A setting, model or configuration that cannot work. The message is one line for the user."""


def forget_frames(error: BaseException) -> None:
    """Drop the tracebacks of an exception and of those behind it.

    A frame that holds the exception is a cycle with it, and everything else in it, such as images,
    would stay until the garbage collector comes by.
    """
    behind: BaseException | None = error
    seen: set[int] = set()
    while behind is not None and id(behind) not in seen:
        seen.add(id(behind))
        behind.__traceback__ = None
        behind = behind.__cause__ or behind.__context__
