"""The service's answers beside those of plain onnxruntime, for the very same pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from service.handlers.interface import Handler
from service.handlers.outcomes import Scores
from service.images.decoding import decode_bgr
from service.labels import top_classes
from thriftpipe.trial.facts import ModelFacts
from thriftpipe.trial.plain import PlainModel

TOP = 3


@dataclass(frozen=True)
class Answer:
    """What both say of one image.

    Attributes:
        photo: the image.
        served: the service's scores, of shape (classes,); None where it has failed.
        plain: those of plain onnxruntime.
        failure: why the service has none, or "".
    """

    photo: Path
    served: npt.NDArray[np.float32] | None
    plain: npt.NDArray[np.float32]
    failure: str = ""

    @property
    def classes(self) -> list[int]:
        """The best of the service, best first, and then those of plain onnxruntime's best."""
        count = min(TOP, len(self.plain))
        sides = [it for it in (self.served, self.plain) if it is not None]
        return list(dict.fromkeys(id_ for side in sides for id_ in top_classes(side, count)))

    @property
    def difference(self) -> float:
        """The largest between the two scores of a class; infinite where there is none."""
        if self.served is None or self.served.shape != self.plain.shape:
            return float("inf")
        largest = np.abs(self.served - self.plain).max()
        return float(largest) if np.isfinite(largest) else float("inf")


def compared(handler: Handler, facts: ModelFacts, photos: Sequence[Path]) -> Iterator[Answer]:
    """Ask both about each image.

    Args:
        handler: the service's.
        facts: of its model.
        photos: images that can be decoded.
    """
    plain = PlainModel(facts.path, facts)
    for photo in photos:
        data = photo.read_bytes()
        pixels = cv2.cvtColor(facts.resizing(decode_bgr(data)), cv2.COLOR_BGR2RGB)
        scores = plain.scores(np.asarray(pixels, np.uint8))
        (outcome,) = handler.classify([data], None)
        if isinstance(outcome, Scores):
            yield Answer(photo, outcome.probabilities, scores)
        else:
            yield Answer(photo, None, scores, str(outcome))
