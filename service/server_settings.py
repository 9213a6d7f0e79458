"""Where the server listens, and what its clients may cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

from service.handler import ConfigurationError
from service.scanner import DECODABLE_DEPTH, MessageLimits
from service.transport import Timeouts

_LIMITS = MessageLimits()
_TIMEOUTS = Timeouts()


@dataclass(frozen=True)
class ServerSettings:
    """The server's own settings; the command line has an option for each.

    Attributes:
        host: name or address to listen on.
        port: port to listen on; 0 picks a free one.
        labels: label file, or None for the packaged one.
        max_frame_bytes: size of the largest message.
        max_buffered_bytes: of the messages of all connections together, beyond the 16 KiB that each
            connection has; more are refused as overload.
        max_string_bytes: size of the largest string or image in a message; None for that of the
            message.
        max_message_values: values in a message.
        max_message_depth: how deep a message's structs and containers may nest.
        max_image_pixels: width times height of the largest image; larger ones are not decoded.
        max_images_per_call: images in one call; more are refused.
        max_queue: images that may wait in the server besides those that the handler works on at
            once; more are refused as overload.
        default_timeout_ms: longest stay of a call in the server, unless it sets less; 0 for none.
        max_connections: connections at a time; more wait until one closes.
        workers: processes that serve; with more than one, a supervisor has the port.
        idle_timeout_s: how long a connection may have nothing to do; 0 for ever.
        message_timeout_s: longest time that one message may take to arrive, once it has begun.
        write_timeout_s: longest time that a client may take to receive one reply.
        unready_s: how long a server that stops says so through `health` before it refuses
            connections.
        drain_timeout_s: longest time to finish requests in flight when the server stops.
        tls_cert: file of the server's certificate chain; with it, all connections are TLS.
        tls_key: file of its private key.
        tls_ca: file of the authorities whose certificates clients must show; None asks for none.
    """

    host: str = "127.0.0.1"
    port: int = 8095
    labels: str | None = None
    max_frame_bytes: int = _LIMITS.frame_bytes
    max_buffered_bytes: int = 256 * 1024 * 1024
    max_string_bytes: int | None = _LIMITS.string_bytes
    max_message_values: int = _LIMITS.values
    max_message_depth: int = _LIMITS.depth
    max_image_pixels: int = 50_000_000
    max_images_per_call: int = 256
    max_queue: int = 1024
    default_timeout_ms: int = 30_000
    max_connections: int = 1024
    workers: int = 1
    idle_timeout_s: float = _TIMEOUTS.idle_s
    message_timeout_s: float = _TIMEOUTS.message_s
    write_timeout_s: float = _TIMEOUTS.write_s
    unready_s: float = 0.0
    drain_timeout_s: float = 30.0
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_ca: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigurationError(f"port must be 0 to 65535, got {self.port}")
        for name in (
            *("max_frame_bytes", "max_string_bytes", "max_message_values", "max_message_depth"),
            *("max_image_pixels", "max_images_per_call", "max_connections", "workers"),
        ):
            if (count := getattr(self, name)) is not None and count < 1:
                raise ConfigurationError(f"{name} must be at least 1, got {count}")
        for name in ("max_queue", "default_timeout_ms"):
            if (count := getattr(self, name)) < 0:
                raise ConfigurationError(f"{name} must be at least 0, got {count}")
        if self.max_buffered_bytes < self.max_frame_bytes:
            raise ConfigurationError(
                f"max_buffered_bytes must hold one message of max_frame_bytes = "
                f"{self.max_frame_bytes}, got {self.max_buffered_bytes}"
            )
        if self.max_message_depth > DECODABLE_DEPTH:
            raise ConfigurationError(
                f"max_message_depth must be at most {DECODABLE_DEPTH}, which is all that can be "
                f"decoded, got {self.max_message_depth}"
            )
        for name in ("message_timeout_s", "write_timeout_s"):
            if not 0 < (limit_s := getattr(self, name)) < math.inf:
                raise ConfigurationError(f"{name} must be above 0 and finite, got {limit_s}")
        for name in ("idle_timeout_s", "unready_s", "drain_timeout_s"):
            if not 0 <= (limit_s := getattr(self, name)) < math.inf:
                raise ConfigurationError(f"{name} must be at least 0 and finite, got {limit_s}")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigurationError("--tls-cert and --tls-key go together; give both or none")
        if self.tls_ca is not None and self.tls_cert is None:
            raise ConfigurationError(
                "--tls-ca is for the certificates of clients and needs --tls-cert and --tls-key"
            )

    @property
    def message_limits(self) -> MessageLimits:
        """What one message may cost."""
        return MessageLimits(
            self.max_frame_bytes,
            self.max_string_bytes,
            self.max_message_values,
            self.max_message_depth,
        )

    @property
    def timeouts(self) -> Timeouts:
        """How long a client may take."""
        return Timeouts(self.idle_timeout_s, self.message_timeout_s, self.write_timeout_s)
