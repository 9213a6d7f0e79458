"""What clients are told of failures; what they must not see is in the log, under an id."""

from __future__ import annotations

import logging
from typing import Any

from idl import inference
from service.handlers.outcomes import DeadlineExceededError, ImageFailure, InvalidImageError
from service.wire.processor import INTERNAL_ERROR_MESSAGE, new_error_id

_log = logging.getLogger(__name__)


def image_error(failure: ImageFailure) -> Any:
    """The ImageError of one image of a call."""
    codes = inference.ErrorCode
    if isinstance(failure, InvalidImageError):
        return inference.ImageError(codes.INVALID_IMAGE, str(failure))
    if isinstance(failure, DeadlineExceededError):
        return inference.ImageError(codes.DEADLINE_EXCEEDED, str(failure))
    error_id = _logged("infer_images: an image failed", failure)
    return inference.ImageError(codes.INTERNAL, INTERNAL_ERROR_MESSAGE, error_id)


def call_error(failure: ImageFailure, uuid: str, timeout_ms: int) -> Any:
    """The exception of a call of one image.

    Args:
        failure: the image's.
        uuid: the request's.
        timeout_ms: how long the call might stay.
    """
    if isinstance(failure, InvalidImageError):
        return inference.InvalidImage(str(failure), uuid)
    if isinstance(failure, DeadlineExceededError):
        return inference.DeadlineExceeded(str(failure), timeout_ms)
    error_id = _logged("infer_batch: an image failed", failure)
    return inference.InternalError(INTERNAL_ERROR_MESSAGE, error_id)


def no_stats(error: TimeoutError) -> Any:
    """The exception of a server that cannot say what it does."""
    return inference.InternalError(str(error), _logged("stats: no answer", error))


def _logged(what: str, error: Exception) -> str:
    error_id = new_error_id()
    _log.error("%s, error_id %s", what, error_id, exc_info=error)
    return error_id
