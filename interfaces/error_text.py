"""Errors as text, and what stands in them."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """The first line of what an error says; its kind where it says nothing."""
    return next(iter(_text(error).splitlines()), type(error).__name__)


def in_one_line(error: BaseException) -> str:
    """Kind and first line of an error, for a log line or another error."""
    return f"{type(error).__name__}: {first_line(error)}" if _text(error) else first_line(error)


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
    except Exception:  # noqa: BLE001 (a user's class)
        return ""


def printable(text: str) -> str:
    """A path or a part of one for people and for the wire, whatever bytes it is made of."""
    return text if text.isprintable() else ascii(text)
