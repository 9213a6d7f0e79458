"""Runs a handler before the first client does: lazy set-up is paid here, and a broken one shows."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from service.errors import ConfigurationError
from service.handlers.interface import Handler
from service.handlers.outcomes import ImageFailure, Scores
from service.handlers.slow_start import told_while_slow

_log = logging.getLogger(__name__)

# Single images as most clients send them, and small lists, side by side as under load.
_IMAGES_PER_CALL = (1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 4, 4)
_CONCURRENT_CALLS = 4
_WIDTH, _HEIGHT = 320, 240


def sample_jpeg() -> bytes:
    """A small JPEG, made in memory: a colour gradient."""
    rows, columns = np.mgrid[0:_HEIGHT, 0:_WIDTH].astype(np.float32)
    channels = (columns / _WIDTH, rows / _HEIGHT, (columns + rows) / (_WIDTH + _HEIGHT))
    return _jpeg((np.stack(channels, axis=-1) * 255).astype(np.uint8))


def grey_jpeg() -> bytes:
    """A small JPEG of one grey level."""
    return _jpeg(np.full((_HEIGHT, _WIDTH, 3), 128, np.uint8))


def _jpeg(image: npt.NDArray[np.uint8]) -> bytes:
    # Not before the server's settings are known: see service.images.limit.prepare_opencv.
    import cv2

    encoded = cv2.imencode(".jpg", image)[1]
    return encoded.tobytes()


class WarmUpTimeoutError(ConfigurationError):
    """The model has not come to an end in time; it still runs, and cannot be interrupted."""


class WarmUp:
    """Classifies sample images some times, in several threads at once.

    Args:
        handler: what classifies.
        limit_s: how long that may take; 0 for no limit.
    """

    def __init__(self, handler: Handler, limit_s: float = 0.0) -> None:
        self._handler = handler
        self._limit_s = limit_s
        self._left = 0

    @property
    def is_under_way(self) -> bool:
        """Whether calls of the handler have not come to an end."""
        return self._left > 0

    def run(self) -> float:
        """Have the handler classify the warm-up images, for as long as is allowed.

        Returns:
            About how long it takes from one image that is done to the next, in seconds.

        Raises:
            ConfigurationError: the handler cannot classify them, or its scores are not one a class
                or no finite numbers.
            WarmUpTimeoutError: it takes longer than it may.
        """
        info = self._handler.info()
        end_s = time.monotonic() + self._limit_s if self._limit_s else math.inf
        doing = f"warming up {info.model} with {info.engine}"
        _log.debug("%s", doing)
        with told_while_slow(doing):
            try:
                image = sample_jpeg()
                image_s, outcomes = self._classify([[image] * n for n in _IMAGES_PER_CALL], end_s)
                for outcome in outcomes:
                    _check(outcome, info.num_classes)
                _, outcomes = self._classify([[grey_jpeg()]], end_s)
            except queue.Empty:
                raise WarmUpTimeoutError(
                    f"{doing} takes longer than --start-timeout-s = {self._limit_s:g}: a model "
                    f"with a loop may never end; a slow one needs a higher limit, 0 for none"
                ) from None
        if any(isinstance(it, ImageFailure) or not it.are_finite() for it in outcomes):
            # It may divide by an image's own contrast, and be of use all the same.
            _log.warning(
                "the model gives no finite scores for an image of one grey level: such images, and "
                "perhaps others, will fail as INTERNAL"
            )
        return image_s

    def _classify(
        self, calls: Sequence[list[bytes]], end_s: float
    ) -> tuple[float, list[Scores | ImageFailure]]:
        """Seconds from one image to the next, and the outcomes; queue.Empty if it takes too long.

        The threads are daemons: a thread whose model does not return cannot be joined.
        """
        waiting: queue.SimpleQueue[list[bytes]] = queue.SimpleQueue()
        done: queue.SimpleQueue[list[Scores | ImageFailure] | BaseException] = queue.SimpleQueue()
        for images in calls:
            waiting.put(images)
        self._left = len(calls)

        def work() -> None:
            while True:
                try:
                    images = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    done.put(self._handler.classify(images, None))
                except BaseException as error:  # noqa: BLE001 (raised again by the caller's thread)
                    done.put(error)

        started_s = time.monotonic()
        for _ in range(min(_CONCURRENT_CALLS, len(calls))):
            threading.Thread(target=work, name="warm-up", daemon=True).start()
        outcomes: list[Scores | ImageFailure] = []
        errors: list[BaseException] = []
        timed = 0
        while self._left:
            remaining_s = min(max(0.0, end_s - time.monotonic()), threading.TIMEOUT_MAX)
            outcome = done.get(timeout=remaining_s)
            self._left -= 1
            if isinstance(outcome, BaseException):
                errors.append(outcome)
                continue
            outcomes += outcome
            timed += len(outcome)
            if len(calls) - self._left == _CONCURRENT_CALLS:
                # The first call of each thread pays for what is set up late.
                started_s, timed = time.monotonic(), 0
        if errors:
            raise errors[0]
        return (time.monotonic() - started_s) / max(1, timed), outcomes


def _check(outcome: Scores | ImageFailure, classes: int) -> None:
    if isinstance(outcome, ImageFailure):
        raise ConfigurationError(
            f"the handler cannot classify the warm-up image: {outcome}"
        ) from outcome
    shape = outcome.probabilities.shape
    if shape != (classes,):
        raise ConfigurationError(
            f"the model's scores have the shape {shape}; a classifier of {classes} classes "
            f"gives ({classes},)"
        )
    if not outcome.are_finite():
        raise ConfigurationError(
            "the model's scores for the warm-up image are not finite numbers: its weights are "
            "damaged, --mean and --std are not its own, or the precision is too small for it; try "
            "--precision fp32"
        )
