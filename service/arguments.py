"""What the command line takes."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import NoReturn

from engine.names import unknown_name
from service.handler import HandlerSettings
from service.handlers import HANDLERS
from service.scanner import DECODABLE_DEPTH
from service.server_settings import ServerSettings

_DECODERS = ("cpu", "gpu")
_LOG_LEVELS = ("debug", "info", "warning", "error")


class _Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, with the closest option where one was mistyped."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see --help)\n")

    def parse_options(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        options, unknown = self.parse_known_args(arguments)
        if unknown:
            name = unknown[0].split("=")[0]
            known = [text for text in self._option_string_actions if text.startswith("--")]
            self.error(unknown_name("option", name, known))
        return options


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of a command line.

    Options of the model that were not given are not in the result; the server's always are.
    A mistake is told in one line, and ends the process with exit code 2.
    """
    parser = _Parser(
        prog="python -m service",
        description="Serve image classification over Thrift (binary protocol, framed or not).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument(
        "--handler",
        required=True,
        metavar=f"{{{','.join(HANDLERS)}}}",
        help="what classifies: the locked baseline, the batching pipeline, or null, a measuring "
        "aid that answers at once and so shows the cost of the server itself",
    )
    model = parser.add_argument_group("model")
    model.add_argument("--engine", help="provider that runs the model (default: auto)")
    model.add_argument(
        "--precision",
        help="precision to run, such as fp32 or int8 (default: the configuration's, or what suits "
        "the engine)",
    )
    model.add_argument(
        "--model",
        metavar="NAME_OR_FILE",
        help="a model of the zoo or an ONNX file (default: the configuration's, or resnet50)",
    )
    model.add_argument("--weights", metavar="FILE", help="state dict for the zoo's model")
    model.add_argument(
        "--config", metavar="FILE.toml", help="the pipeline's graph (default: the shipped one)"
    )
    model.add_argument(
        "--set",
        action="append",
        metavar="[NODE.]KEY=VALUE",
        help="change one value of the pipeline's graph; may be given more than once",
    )
    model.add_argument(
        "--backends",
        metavar="FILE.py",
        help="Python file that registers backends and filters, executed before the pipeline's "
        "graph is read",
    )
    model.add_argument(
        "--mean",
        type=_channels,
        metavar="R,G,B",
        help="subtracted from each channel, in 0..255 (default: the model's own)",
    )
    model.add_argument(
        "--std",
        type=_channels,
        metavar="R,G,B",
        help="each channel is divided by it then, in 0..255 (default: the model's own)",
    )
    model.add_argument(
        "--calibration-images",
        metavar="DIR",
        help="folder of images like those that will come, for precision int8",
    )
    model.add_argument(
        "--labels",
        metavar="FILE",
        help="class names, one a line (default: ImageNet's, where the model has 1000 classes)",
    )
    model.add_argument(
        "--no-lock",
        action="store_true",
        help="run the baseline without its lock, where the engine allows it",
    )
    model.add_argument(
        "--max-batch-size",
        type=int,
        metavar="N",
        help="rows of the largest batch of the baseline's engine "
        f"(default: {HandlerSettings().max_batch_size})",
    )
    model.add_argument(
        "--decode",
        choices=_DECODERS,
        help="where the pipeline decodes images: chooses the shipped graph "
        f"(default: {HandlerSettings().decode})",
    )
    model.add_argument(
        "--devices",
        type=_devices,
        metavar="N,N",
        help="numbers of the GPUs to use, such as 0,1 (default: the engine's choice)",
    )
    _add_server_options(parser)
    return parser.parse_options(arguments)


def _add_server_options(parser: argparse.ArgumentParser) -> None:
    server = parser.add_argument_group("server")
    defaults = ServerSettings()
    server.add_argument("--host", default=defaults.host, help="name or address to listen on")
    server.add_argument(
        "--port", type=int, default=defaults.port, help="port to listen on; 0 picks a free one"
    )
    server.add_argument(
        "--max-frame-bytes",
        type=int,
        default=defaults.max_frame_bytes,
        metavar="N",
        help="size of the largest message",
    )
    server.add_argument(
        "--max-buffered-bytes",
        type=int,
        default=defaults.max_buffered_bytes,
        metavar="N",
        help="size of the messages of all connections together, beyond 16 KiB of each, shared out "
        "among the workers; more are refused as Overloaded",
    )
    server.add_argument(
        "--max-string-bytes",
        type=int,
        metavar="N",
        help="size of the largest string or image in a message (default: that of the message)",
    )
    server.add_argument(
        "--max-message-values",
        type=int,
        default=defaults.max_message_values,
        metavar="N",
        help="strings, structs and containers in a message, and numbers outside of containers",
    )
    server.add_argument(
        "--max-message-depth",
        type=int,
        default=defaults.max_message_depth,
        metavar="N",
        help=f"how deep a message's structs and containers may nest, at most {DECODABLE_DEPTH}",
    )
    server.add_argument(
        "--max-image-pixels",
        type=int,
        default=defaults.max_image_pixels,
        metavar="N",
        help="width x height, in pixels, of the largest image; larger ones are not decoded",
    )
    server.add_argument(
        "--max-images-per-call",
        type=int,
        default=defaults.max_images_per_call,
        metavar="N",
        help="images in one call of infer_images; calls of more are refused as InvalidRequest",
    )
    server.add_argument(
        "--max-queue",
        type=int,
        default=defaults.max_queue,
        metavar="N",
        help="images that may wait in the server, besides those that the handler works on at "
        "once, shared out among the workers; more are refused as Overloaded",
    )
    server.add_argument(
        "--default-timeout-ms",
        type=int,
        default=defaults.default_timeout_ms,
        metavar="MS",
        help="longest stay of a call in the server, from its last byte's arrival on; what is not "
        "done by then is dropped. A call's own timeout_ms may be less, and counts for no more. "
        "0 for no limit but the call's",
    )
    server.add_argument(
        "--max-connections",
        type=int,
        default=defaults.max_connections,
        metavar="N",
        help="connections at a time, of all workers together; more wait until one closes",
    )
    server.add_argument(
        "--workers",
        type=int,
        default=defaults.workers,
        metavar="N",
        help="processes that serve behind the port, each with a handler of its own and its share "
        "of the cores and of --devices",
    )
    server.add_argument(
        "--idle-timeout-s",
        type=float,
        default=defaults.idle_timeout_s,
        metavar="S",
        help="longest time that a connection may have nothing to do; 0 for ever",
    )
    server.add_argument(
        "--message-timeout-s",
        type=float,
        default=defaults.message_timeout_s,
        metavar="S",
        help="longest time that a message, or a TLS handshake, may take to arrive",
    )
    server.add_argument(
        "--write-timeout-s",
        type=float,
        default=defaults.write_timeout_s,
        metavar="S",
        help="longest time that a client may take to receive a reply",
    )
    server.add_argument(
        "--unready-s",
        type=float,
        default=defaults.unready_s,
        metavar="S",
        help="after SIGTERM or SIGINT, how long health() says that the server stops, while it "
        "still takes connections and requests, so that load balancers notice",
    )
    server.add_argument(
        "--drain-timeout-s",
        type=float,
        default=defaults.drain_timeout_s,
        metavar="S",
        help="longest time to finish requests in flight after SIGTERM or SIGINT",
    )
    server.add_argument(
        "--tls-cert",
        metavar="FILE",
        help="the server's certificate chain in PEM format; makes all connections TLS 1.2 or "
        "later, and plain clients are refused (default: plain connections)",
    )
    server.add_argument(
        "--tls-key", metavar="FILE", help="the private key of --tls-cert, without a password"
    )
    server.add_argument(
        "--tls-ca",
        metavar="FILE",
        help="authorities, in PEM format, one of which must have signed the certificate that each "
        "client shows; without it TLS proves the server only, and whoever reaches the port may ask",
    )
    server.add_argument(
        "--log-level",
        choices=_LOG_LEVELS,
        default="info",
        help="least severe log lines; the ready line is an info line",
    )


def _channels(text: str) -> tuple[float, ...]:
    """One number, or one a channel."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3) or not all(map(math.isfinite, values)):
        raise argparse.ArgumentTypeError(
            f"takes one number or three with commas between, such as 123.675,116.28,103.53; "
            f"got {text!r}"
        )
    return values


def _devices(text: str) -> tuple[int, ...]:
    """Different GPU numbers."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise argparse.ArgumentTypeError(
            f"takes GPU numbers from 0 with commas between, such as 0,1; got {text!r}"
        )
    devices = tuple(map(int, parts))
    if repeated := [device for device in devices if devices.count(device) > 1]:
        raise argparse.ArgumentTypeError(
            f"takes each GPU once; {repeated[0]} is there more than once in {text!r}"
        )
    return devices
