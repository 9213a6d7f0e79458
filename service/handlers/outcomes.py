"""What becomes of an image: scores, or why it has none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from service.call_counts import DEADLINE_EXCEEDED, DISCONNECTED, INTERNAL_ERROR, INVALID_IMAGE, OK

if TYPE_CHECKING:
    # The supervisor, which never holds scores, starts faster without it.
    import numpy as np
    import numpy.typing as npt


class ImageFailure(Exception):  # noqa: N818 (an outcome that is returned, not an error that is raised)
    """Why one image has no scores; its neighbours in the call are not affected.

    Attributes:
        outcome: the word under which it is counted.
        stage_times_ms: none; as of `Scores`.
    """

    outcome: ClassVar[str] = INTERNAL_ERROR
    stage_times_ms: ClassVar[Mapping[str, float]] = MappingProxyType({})


class InvalidImageError(ImageFailure):
    """The bytes are not an image that can be decoded."""

    outcome = INVALID_IMAGE


class DeadlineExceededError(ImageFailure):
    """The image was not finished within the time that its call may stay."""

    outcome = DEADLINE_EXCEEDED


class ClientDisconnectedError(DeadlineExceededError):
    """The image was dropped: the client has closed its connection."""

    outcome = DISCONNECTED


@dataclass(frozen=True)
class Scores:
    """What a handler says of one image.

    Attributes:
        probabilities: float32 array of shape (classes,).
        stage_times_ms: stage name to milliseconds, in the order the stages ran.
        outcome: the word under which it is counted.
    """

    outcome: ClassVar[str] = OK
    probabilities: npt.NDArray[np.float32]
    stage_times_ms: dict[str, float] = field(default_factory=dict)

    def are_finite(self) -> bool:
        """Whether all of them are finite numbers."""
        # A sum is finite where its terms are: no float32 is too large for a sum in float64.
        return math.isfinite(self.probabilities.sum(dtype="f8"))


def was_worked_on(outcome: Scores | BaseException | None) -> bool:
    """Whether an image's outcome took the work of an image; None stands for scores."""
    return outcome is None or isinstance(outcome, Scores | InvalidImageError)
