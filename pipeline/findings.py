"""What is wrong with a document, sorted by what a script may want to do about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from engine.errors import EngineError, MissingOnHostError
from pipeline.errors import MissingHereError, PipelineConfigError

_Value = TypeVar("_Value")


@dataclass
class Findings:
    """What was found.

    Attributes:
        mistakes: why it cannot be loaded, wherever it runs.
        missing: what it needs and this host lacks; elsewhere it may run.
        warnings: what has no effect, or may not be meant.
    """

    mistakes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, where: str, error: Exception) -> None:
        """Note an error that loading a part of it would raise."""
        is_missing = isinstance(error, MissingOnHostError | MissingHereError)
        text = f"{where} {error}".strip()
        found = self.missing if is_missing else self.mistakes
        # Nodes and settings may share what is wrong.
        if text not in found:
            found.append(text)

    def of(self, where: str, action: Callable[[], _Value]) -> _Value | None:
        """What the action gives; None where it raises, which adds a finding."""
        try:
            return action()
        except (EngineError, PipelineConfigError) as error:
            self.add(where, error)
            return None
