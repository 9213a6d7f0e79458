"""Runs a handler before the first client does: lazy set-up is paid here, and a broken one shows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from service.handler import ConfigurationError, Handler, ImageFailure, Scores

# Single images as most clients send them, and small lists, side by side as under load.
_IMAGES_PER_CALL = (1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 4, 4)
_CONCURRENT_CALLS = 4
_WIDTH, _HEIGHT = 320, 240


def sample_jpeg() -> bytes:
    """A small JPEG, made in memory: a colour gradient."""
    # Not before the server's settings are known: see service.image_limit.prepare_opencv.
    import cv2

    rows, columns = np.mgrid[0:_HEIGHT, 0:_WIDTH].astype(np.float32)
    channels = (columns / _WIDTH, rows / _HEIGHT, (columns + rows) / (_WIDTH + _HEIGHT))
    image = (np.stack(channels, axis=-1) * 255).astype(np.uint8)
    encoded = cv2.imencode(".jpg", image)[1]
    return encoded.tobytes()


def warm_up(handler: Handler) -> None:
    """Classify a sample image some times, in several threads at once.

    Raises:
        ConfigurationError: the handler cannot classify it, or its scores are not one a class.
    """
    image = sample_jpeg()
    classes = handler.info().num_classes

    def classify(images: int) -> list[Scores | ImageFailure]:
        return handler.classify([image] * images, None)

    with ThreadPoolExecutor(_CONCURRENT_CALLS, thread_name_prefix="warm-up") as pool:
        for outcomes in pool.map(classify, _IMAGES_PER_CALL):
            for outcome in outcomes:
                _check(outcome, classes)


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
