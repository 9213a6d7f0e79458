"""The command line: `python -m service --handler pipeline`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from service.arguments import parse_arguments
from service.arrivals import PortArrivals
from service.checked_options import handler_settings, server_settings
from service.handler import ConfigurationError
from service.handlers import create_handler
from service.heaps import share_heaps
from service.image_limit import prepare_opencv
from service.process import error_line, log_to_stderr
from service.server import Server
from service.signals import stopped_by_signals
from service.supervisor import Supervisor, WorkerError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until it is stopped.

    Args:
        arguments: the command line; None for this process's own.

    Returns:
        The exit code: 0 after an orderly stop, 1 if the server could not listen or requests were
        cut off, 2 for a setting that cannot work.
    """
    given = sys.argv[1:] if arguments is None else arguments
    options = parse_arguments(given)
    log_to_stderr(options.log_level)
    try:
        for_handler = handler_settings(options)
        settings = server_settings(options)
        prepare_opencv(settings.max_image_pixels)
        share_heaps()
        server: Server | Supervisor
        if settings.workers > 1:
            server = Supervisor(settings, given)
        else:
            server = Server(
                settings,
                options.handler,
                lambda: create_handler(options.handler, for_handler),
                PortArrivals(settings),
            )
        with server, stopped_by_signals(server):
            cut_off = server.run()
    except WorkerError as error:
        return _fail(str(error), error.exit_code)
    except (ConfigurationError, OSError) as error:
        return _fail(*error_line(error))
    return 1 if cut_off else 0


def _fail(line: str, code: int) -> int:
    sys.stderr.write(f"error: {line}\n")
    return code
