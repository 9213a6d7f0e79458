"""Whether the server can take requests, and if not, why."""

from __future__ import annotations

from service.handlers.interface import Handler


class Readiness:
    """Asked by clients through `health`, and turned off when the server begins to stop.

    Args:
        handler: it is asked each time whether it can classify.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._stopping = ""
        self._trouble = ""

    def end(self, reason: str) -> None:
        """Stop being ready. Any thread may call this.

        Args:
            reason: why the server stops.
        """
        self._stopping = f"the server stops: {reason}"

    def trouble(self, reason: str) -> None:
        """Be not ready for a reason outside of the handler, until it is "". For any thread."""
        self._trouble = reason

    def why_not(self) -> str:
        """Why the server cannot take requests; "" where it can."""
        return self._stopping or self._trouble or self._handler.why_not_ready()
