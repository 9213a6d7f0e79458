"""What one call may cost, and how long it may stay."""

from __future__ import annotations

import math
import time
from typing import Any

from idl import inference
from service.handlers.deadline import Deadline
from service.images.cost import ImageCost
from service.images.limit import ImageLimit
from service.options.server_settings import ServerSettings
from service.wire.peer import current_peer


class CallLimits:
    """Judges a call before anything is done for it.

    Args:
        settings: the server's.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._most_images = settings.max_images_per_call
        self._timeout_ms = settings.default_timeout_ms
        self._image_limit = ImageLimit(
            settings.max_image_pixels, settings.max_decoded_bytes, settings.image_formats
        )

    def check_count(self, images: int) -> None:
        """Raise InvalidRequest if one call must not have so many images."""
        if images > self._most_images:
            raise inference.InvalidRequest(
                f"the call has {images} images, --max-images-per-call allows "
                f"{self._most_images}; split it"
            )

    def image_cost(self, data: Any) -> ImageCost | None:
        """What decoding one image takes; None if it is of no known format.

        Raises:
            InvalidImageError: why it is not given to the handler.
        """
        return self._image_limit.cost(data)

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
        peer = current_peer()
        limit_ms = min(timeout_ms or math.inf, self._timeout_ms or math.inf)
        if limit_ms == math.inf:
            return Deadline(math.inf, 0, peer)
        arrived_s = time.monotonic() if peer is None else peer.arrived_s
        return Deadline(arrived_s + limit_ms / 1000, int(limit_ms), peer)
