"""Errors in words."""

from __future__ import annotations


def in_one_line(error: BaseException) -> str:
    """Kind and first line of an error, for a log line or another error."""
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
