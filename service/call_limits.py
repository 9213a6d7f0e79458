"""What one call may cost, and how long it may stay."""

from __future__ import annotations

import math
import time
from typing import Any

from idl import inference
from service.caller import current_caller
from service.handler import Deadline, InvalidImageError
from service.image_limit import ImageLimit
from service.server_settings import ServerSettings


class CallLimits:
    """Judges a call before anything is done for it.

    Args:
        settings: the server's.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._most_images = settings.max_images_per_call
        self._timeout_ms = settings.default_timeout_ms
        self._image_limit = ImageLimit(settings.max_image_pixels)

    def check_count(self, images: int) -> None:
        """Raise InvalidRequest if one call must not have so many images."""
        if images > self._most_images:
            raise inference.InvalidRequest(
                f"the call has {images} images, --max-images-per-call allows "
                f"{self._most_images}; split it"
            )

    def image_failure(self, data: Any) -> InvalidImageError | None:
        """Why one image is not given to the handler, or None where it is."""
        return self._image_limit.failure(data)

    def deadline(self, timeout_ms: int | None = None) -> Deadline:
        """How long the call of this thread's client may stay, from its arrival on.

        Args:
            timeout_ms: the client's own limit; it counts where it is less than the server's.

        Raises:
            InvalidRequest: the client's limit has passed by definition.
        """
        if timeout_ms is not None and timeout_ms <= 0:
            raise inference.InvalidRequest(
                f"timeout_ms must be at least 1, got {timeout_ms}; leave it unset for the "
                "server's limit"
            )
        caller = current_caller()
        limit_ms = min(timeout_ms or math.inf, self._timeout_ms or math.inf)
        if limit_ms == math.inf:
            return Deadline(math.inf, 0, caller)
        arrived_s = time.monotonic() if caller is None else caller.arrived_s
        return Deadline(arrived_s + limit_ms / 1000, int(limit_ms), caller)
