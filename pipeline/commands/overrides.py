"""`--set [NODE.]KEY=VALUE`, given any number of times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from interfaces.names import shortened
from pipeline.errors import PipelineConfigError
from pipeline.language.document import apply_overrides, read_toml


def read_document(path: str, assignments: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """A file's document with the assignments made.

    Raises:
        PipelineConfigError: the file cannot be read or is no TOML, or an assignment cannot be made.
    """
    document = read_toml(path)
    for assignment in assignments:
        document = assigned(document, assignment)
    return document


def assigned(document: dict[str, Any], assignment: tuple[str, str]) -> dict[str, Any]:
    """A copy of the document with one value changed; PipelineConfigError if that cannot be."""
    try:
        return apply_overrides(document, dict([assignment]))
    except PipelineConfigError as error:
        raise PipelineConfigError(f"--set {shortened('='.join(assignment))}: {error}") from error
