"""Where the server listens, and what its clients may cost."""

from __future__ import annotations

from dataclasses import dataclass, replace

from interfaces.image_formats import DEFAULT_FORMATS, FORMATS
from interfaces.kinds import (
    COUNT,
    COUNT_OR_0,
    FILE,
    NAMES,
    PORT_OR_0,
    SECONDS,
    SECONDS_OR_0,
    SWITCH,
    URL,
    WHOLE_MILLISECONDS,
    WHOLE_NUMBER,
    Bounds,
    or_word,
)
from interfaces.names import unknown_name
from interfaces.options import option, out_of_bounds
from interfaces.service import PORT
from service.errors import ConfigurationError
from service.handlers.handler_settings import HandlerSettings
from service.images.cost import USUAL_MOST_WORK
from service.wire.scanner import DECODABLE_DEPTH, MessageLimits
from service.wire.tls import TlsFiles
from service.wire.transport import Timeouts

MOST_WORKERS = 256
_WORKERS = replace(
    COUNT, bounds=Bounds(1, MOST_WORKERS, why="more processes than cores are of no use")
)
_LIMITS = MessageLimits()
_TIMEOUTS = Timeouts()


@dataclass(frozen=True)
class ServerSettings:
    """The server's own settings; each is an option of the command line.

    Raises:
        ConfigurationError: one of them cannot work.
    """

    labels: str | None = option(
        None,
        "class names, one a line",
        FILE,
        default_text="ImageNet's, where the model has 1000 classes",
        group="model",
    )
    host: str = option("127.0.0.1", "name or address to listen on")
    port: int = option(PORT, "port to listen on; 0 picks a free one", PORT_OR_0)
    metrics_port: int | None = option(
        None,
        "port for HTTP with `/metrics` for Prometheus, `/livez`, `/readyz` and `/info`, one for "
        "all workers; 0 picks a free one",
        PORT_OR_0,
        default_text="no HTTP",
    )
    metrics_host: str = option("127.0.0.1", "name or address to listen on for that HTTP")
    max_frame_bytes: int = option(
        _LIMITS.frame_bytes,
        "size of the largest message",
        COUNT,
        beyond="`InvalidRequest`, connection closed; for unframed clients the bytes are summed up "
        "while they are read. Pixels that a worker hands to the engine process may take as much, "
        "and 33,554,432 bytes at least; an image of more is INVALID_IMAGE",
    )
    max_buffered_bytes: int = option(
        HandlerSettings().max_buffered_bytes,
        "memory of the messages of all connections together, with what is decoded of them, beyond "
        "16 KiB of each, shared out among the workers",
        WHOLE_NUMBER,
        beyond="`Overloaded`, connection closed, with a line in the log every 10 s; so are then, "
        "until there is room for it, the messages that come most slowly, of those that began 1 s "
        "ago. The server's resident memory grows by 1.25 times this at most, besides what decoding "
        "and engines take",
    )
    max_string_bytes: int | None = option(
        _LIMITS.string_bytes,
        "size of the largest string or image in a message",
        COUNT,
        default_text="that of the message",
        beyond="`InvalidRequest`, connection closed",
    )
    max_message_values: int = option(
        _LIMITS.values,
        "strings, structs and containers in a message, and numbers outside of containers",
        COUNT,
        beyond="`InvalidRequest`, connection closed",
    )
    max_message_depth: int = option(
        _LIMITS.depth,
        "how deep a message's structs and containers may nest",
        replace(COUNT, bounds=Bounds(1, DECODABLE_DEPTH, why="deeper ones cannot be decoded")),
        beyond="`InvalidRequest`, connection closed",
    )
    max_image_pixels: int = option(
        USUAL_MOST_WORK,
        "width x height, in pixels, of the largest image",
        COUNT,
        beyond="INVALID_IMAGE, and nothing is decoded: the header says how large it is. So is an "
        "image that takes longer to decode than a JPEG of that size, or of 51,000,000 pixels, may "
        "(0.9 s): a PNG of RGB has 18 million pixels at most, of RGBA 14, and a progressive JPEG "
        "of 24 million pixels 12 MB",
    )
    max_decoded_bytes: int = option(
        1024 * 1024 * 1024,
        "memory of all images together that are being decoded or are decoded, shared out among the "
        "workers, of which each has at least what one image may take, 342 MiB",
        COUNT,
        beyond="one more image waits, in turn and as long as its call may stay; one that never "
        "fits is INVALID_IMAGE",
    )
    image_formats: tuple[str, ...] = option(
        DEFAULT_FORMATS,
        f"formats that are decoded, of {', '.join(FORMATS)}",
        NAMES,
        beyond="INVALID_IMAGE",
    )
    max_images_per_call: int = option(
        256, "images in one call of infer_images", COUNT, beyond="`InvalidRequest`: split the call"
    )
    max_queue: int = option(
        1024,
        "images that may wait in the server, besides those that the handler works on at once, "
        "shared out among the workers",
        COUNT_OR_0,
        beyond="`Overloaded`, with a hint when to try again; a client that comes back sooner and "
        "is refused again gets its answer at that time, 0.02 s later at most",
    )
    max_queue_ms: int = option(
        450,
        "longest time that a call may be expected to wait for others, as fast as images have been "
        "leaving; a call of many images may wait longer, in proportion. 0 for no such limit",
        WHOLE_MILLISECONDS,
        beyond="`Overloaded` at once; so is a call that would wait beyond its own timeout. A lone "
        "call is never refused",
    )
    default_timeout_ms: int = option(
        30_000,
        "longest stay of a call in the server, from its last byte's arrival on. A call's own "
        "timeout_ms may be less, and counts for no more. 0 for no limit but the call's",
        WHOLE_MILLISECONDS,
        beyond="the call is dropped before decoding or before inference: `DeadlineExceeded`, or "
        "DEADLINE_EXCEEDED for one of several images",
    )
    max_connections: int = option(
        1024,
        "connections at a time, of all workers together; the soft limit of open files "
        "(`ulimit -n`) is raised for them",
        COUNT,
        beyond="on 32 more of each process, `ping`, `health` and `server_info` are answered and "
        "other calls are `Overloaded`, with a hint when to try again; each is closed with its "
        "answer, after 2 s without one, or, the one that has been silent for longest first, for "
        "one that comes later. Each connection has one thread, and clients cause no others",
    )
    workers: int | None = option(
        None,
        "processes that serve behind the port, each with a handler of its own and its share of the "
        "cores and of --devices; auto takes as many as suit the cores, the GPUs and the memory "
        "that is free, and 1 where the handler is not the pipeline",
        or_word(_WORKERS, "auto"),
        default_text="auto",
    )
    idle_timeout_s: float = option(
        _TIMEOUTS.idle_s,
        "longest time that a connection may have nothing to do; 0 for no limit",
        SECONDS_OR_0,
        beyond="the connection is closed",
    )
    message_timeout_s: float = option(
        _TIMEOUTS.message_s,
        "longest time that a message, or a TLS handshake, may take to arrive",
        SECONDS,
        beyond="the connection is closed",
    )
    write_timeout_s: float = option(
        _TIMEOUTS.write_s,
        "longest time that a client may take to receive a reply",
        SECONDS,
        beyond="the connection is closed",
    )
    start_timeout_s: float = option(
        300.0,
        "longest time that the warm-up may take, the first runs of a model that is loaded and "
        "built already; 0 for no limit",
        SECONDS_OR_0,
        beyond="the start fails with exit code 2. The log says what a start is busy with after "
        "10 s, and again after growing pauses",
    )
    drain_delay_s: float = option(
        0.0,
        "after SIGTERM or SIGINT, how long `health` says that the server stops while it still "
        "takes connections and requests, so that load balancers notice; then it drains",
        SECONDS_OR_0,
        aliases=("unready_s",),
    )
    drain_timeout_s: float = option(
        30.0,
        "longest time to finish requests in flight after SIGTERM or SIGINT",
        SECONDS_OR_0,
        beyond="what is still in flight is cut off, and the exit code is 1",
    )
    hang_timeout_s: float = option(
        HandlerSettings().hang_timeout_s,
        "how long a worker or an engine process may give no sign of life; a slow start does not "
        "count. 0 for no limit",
        SECONDS_OR_0,
        beyond="it is killed and replaced; while no instance, or not the baseline's engine, has "
        "finished its batch for so long and for ten times as long as usual, `health` says "
        '"not ready"',
    )
    access_log: bool = option(
        False,
        "log a line for each request: method, outcome, images, bytes, latency and the client's "
        "address",
        SWITCH,
    )
    slow_ms: int = option(
        0,
        "log a line, with the times of its stages, for each request that takes longer; 0 for none",
        WHOLE_MILLISECONDS,
    )
    trace_endpoint: str | None = option(
        None,
        "URL that gets OpenTelemetry spans of all requests, as OTLP over HTTP; needs the extra "
        "'otel'",
        URL,
        default_text="no traces",
    )
    tls_cert: str | None = option(
        None,
        "the server's certificate chain in PEM format; makes all connections TLS 1.2 or later, and "
        "plain clients are refused",
        FILE,
        default_text="plain connections",
    )
    tls_key: str | None = option(None, "the private key of --tls-cert, without a password", FILE)
    tls_ca: str | None = option(
        None,
        "authorities, in PEM format, one of which must have signed the certificate that each "
        "client shows; without it TLS proves the server only, and any client may ask",
        FILE,
    )

    def __post_init__(self) -> None:
        for problem in out_of_bounds(self):
            raise ConfigurationError(problem)
        if self.max_buffered_bytes < self.max_frame_bytes:
            raise ConfigurationError(
                f"max_buffered_bytes must hold one message of max_frame_bytes = "
                f"{self.max_frame_bytes}, got {self.max_buffered_bytes}"
            )
        for name in self.image_formats:
            if name not in FORMATS:
                raise ConfigurationError(
                    f"--image-formats: {unknown_name('format', name, FORMATS)}"
                )
        if self.metrics_port and (self.metrics_host, self.metrics_port) == (self.host, self.port):
            raise ConfigurationError(
                f"--metrics-port {self.metrics_port} is that of --port; HTTP needs one of its own"
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigurationError("--tls-cert and --tls-key go together; give both or none")
        if self.tls_ca is not None and self.tls_cert is None:
            raise ConfigurationError(
                "--tls-ca is for the certificates of clients and needs --tls-cert and --tls-key"
            )

    @property
    def processes(self) -> int:
        """How many processes serve; 1 as long as that is left open."""
        return self.workers or 1

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
    def tls_files(self) -> TlsFiles | None:
        """The files for TLS; None where connections are plain."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        return TlsFiles(self.tls_cert, self.tls_key, self.tls_ca)

    @property
    def timeouts(self) -> Timeouts:
        """How long a client may take."""
        return Timeouts(self.idle_timeout_s, self.message_timeout_s, self.write_timeout_s)
