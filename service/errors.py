"""The error of a wrong configuration, and errors as text and as kept results."""

from __future__ import annotations


def in_one_line(error: BaseException) -> str:
    """Kind and first line of an error, for a log line or another error."""
    first = next(iter(_text(error).splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def what_it_says(error: BaseException) -> str:
    """The text of an error; with its kind where that says more than the text.

    So it is where there is no text, where the error is no Exception, and with a KeyError, whose
    text is the key alone.
    """
    text = _text(error)
    says_enough = text and isinstance(error, Exception) and not isinstance(error, KeyError)
    return text if says_enough else in_one_line(error)


def _text(error: BaseException) -> str:
    try:
        return str(error).strip()
    except Exception:  # noqa: BLE001 (classes of other people's)
        return ""


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
