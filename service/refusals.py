"""Calls that are refused as overload, each for a reason under which it is counted."""

from __future__ import annotations

from typing import Any

from idl import inference


def overloaded(reason: str, message: str, retry_after_ms: int) -> Any:
    """The IDL's Overloaded.

    Args:
        reason: of what there is too much, in one word.
        message: for the client.
        retry_after_ms: when it may come back.
    """
    error = inference.Overloaded(message, retry_after_ms)
    error.reason = reason
    return error


def refusal_reason(error: Any) -> str:
    """The reason that `overloaded` was given."""
    return str(getattr(error, "reason", "other"))
