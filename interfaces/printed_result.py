"""Results that a process prints: one JSON object in a line of its output."""

from __future__ import annotations

import json
from typing import Any, TypeVar

_Result = TypeVar("_Result", bound="PrintedResult")


class PrintedResult:
    """Base of dataclasses whose fields JSON can hold."""

    def to_line(self) -> str:
        """The line that is printed."""
        return json.dumps(vars(self))

    @classmethod
    def from_line(cls: type[_Result], line: str) -> _Result | None:
        """What a line of output says; None for a line of something else, such as a library's."""
        try:
            fields: dict[str, Any] = json.loads(line)
            return cls(**fields)
        except (ValueError, TypeError):
            return None
