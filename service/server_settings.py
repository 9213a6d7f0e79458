"""Where the server listens, and what its clients may cost."""

from __future__ import annotations

from dataclasses import dataclass

from service.handler import ConfigurationError


@dataclass(frozen=True)
class ServerSettings:
    """The server's own settings; the command line has an option for each.

    Attributes:
        host: name or address to listen on.
        port: port to listen on; 0 picks a free one.
        labels: label file, or None for the packaged one.
        max_frame_bytes: size of the largest message.
        max_in_flight_images: images in the server at a time; more are refused as overload.
        max_connections: connections at a time; more wait until one closes.
        workers: processes that serve; with more than one, a supervisor has the port.
        message_timeout_s: longest time that one message may take to arrive, once it has begun.
        drain_timeout_s: longest time to finish requests in flight when the server stops.
    """

    host: str = "127.0.0.1"
    port: int = 8095
    labels: str | None = None
    max_frame_bytes: int = 16_384_000
    max_in_flight_images: int = 1024
    max_connections: int = 1024
    workers: int = 1
    message_timeout_s: float = 30.0
    drain_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigurationError(f"port must be 0 to 65535, got {self.port}")
        for name in ("max_frame_bytes", "max_in_flight_images", "max_connections", "workers"):
            if (count := getattr(self, name)) < 1:
                raise ConfigurationError(f"{name} must be at least 1, got {count}")
        if self.max_in_flight_images < self.workers:
            raise ConfigurationError(
                f"max_in_flight_images is shared out among the workers and must be at least "
                f"{self.workers}, as many as there are; got {self.max_in_flight_images}"
            )
        if not self.message_timeout_s > 0:
            raise ConfigurationError(
                f"message_timeout_s must be above 0, got {self.message_timeout_s}"
            )
        if not self.drain_timeout_s >= 0:
            raise ConfigurationError(
                f"drain_timeout_s must be at least 0, got {self.drain_timeout_s}"
            )
