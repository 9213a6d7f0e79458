"""Answers at once: what is left is the cost of the server itself.

`--handler null` decodes no image and runs no model. It measures what receiving, decoding the call,
encoding the reply and sending it cost, and is of no other use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from service.handlers.deadline import Deadline
from service.handlers.handler_settings import HandlerSettings
from service.handlers.interface import HandlerInfo, HandlerStats
from service.handlers.outcomes import ImageFailure, Scores

NUM_CLASSES = 1000
CLASS_ID = 0


class NullHandler:
    """Gives every image the same score: 1.0 for class 0."""

    def __init__(self) -> None:
        probabilities = np.zeros(NUM_CLASSES, dtype=np.float32)
        probabilities[CLASS_ID] = 1.0
        probabilities.setflags(write=False)
        self._scores = Scores(probabilities)

    def classify(
        self, images: Sequence[bytes], deadline: Deadline | None
    ) -> list[Scores | ImageFailure]:
        """The fixed scores, once an image; neither images nor deadline are looked at."""
        del deadline
        return [self._scores] * len(images)

    def begin(
        self, images: Sequence[bytes], deadline: Deadline, done: Callable[[], None]
    ) -> Callable[[], list[Scores | ImageFailure]]:
        """As `classify`; they are done at once."""
        del deadline
        done()
        return lambda: [self._scores] * len(images)

    def info(self) -> HandlerInfo:
        """No engine and no model."""
        return HandlerInfo(
            engine="none",
            precision="none",
            model="none",
            model_sha256="",
            config_sha256="",
            num_classes=NUM_CLASSES,
            versions={},
            settings={},
        )

    def stats(self) -> HandlerStats:
        """It has no nodes."""
        return HandlerStats()

    def why_not_ready(self) -> str:
        """Nothing keeps it from classifying."""
        return ""

    def close(self) -> None:
        """Nothing to free."""


def create_handler(settings: HandlerSettings) -> NullHandler:
    """The null handler; it has no settings."""
    del settings
    return NullHandler()
