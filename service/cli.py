"""The command line: `python -m service --handler pipeline`."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pkgutil import resolve_name

from interfaces.options import settings_from
from service.accepting.descriptors import allow_descriptors
from service.accepting.listener import PortListener
from service.errors import ConfigurationError
from service.handlers.handler_settings import HandlerSettings
from service.images.decode_memory import limit_decode_memory
from service.images.limit import prepare_opencv
from service.logs.log_settings import LogSettings
from service.logs.start import start_log
from service.malloc_arenas import limit_arenas
from service.options.cluster_settings import ClusterSettings
from service.options.given import GivenOptions, gather
from service.options.server_arguments import parse_arguments
from service.options.server_settings import ServerSettings
from service.options.validation import handler_settings, server_settings
from service.processes.lifecycle import Lifecycle
from service.processes.placement import Placement
from service.processes.process import error_line, write_error
from service.processes.signals import stopped_by_signals
from service.processes.supervisor import Supervisor
from service.processes.worker_choice import choose_worker_count
from service.processes.worker_slots import WorkerError

# Like a handler it builds on this package, and is imported only where it is asked for.
_FRONT_END = "cluster.command:front_end"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until it is stopped.

    Args:
        arguments: the command line; None for this process's own.

    Returns:
        The exit code: 0 after an orderly stop, 1 if the server could not listen or requests were
        cut off, 2 for a setting that cannot work.
    """
    try:
        given = gather(sys.argv[1:] if arguments is None else arguments, os.environ)
    except ConfigurationError as error:
        return _fail(*error_line(error))
    options = parse_arguments(given.words)
    try:
        start_log(settings_from(LogSettings, options))
    except OSError as error:
        return _fail(given.traced(f"--log-file: {error.filename}: {error.strerror}"), 2)
    with ExitStack() as started:
        return _serve(options, given, started)


def _serve(options: Namespace, given: GivenOptions, started: ExitStack) -> int:
    """Run the server; what stands beside it ends with `started`."""
    try:
        for_handler = handler_settings(options)
        settings = server_settings(options)
        allow_descriptors(settings.max_connections)
        prepare_opencv(settings.max_image_pixels)
        limit_decode_memory(settings.max_decoded_bytes)
        limit_arenas()
        # Before the slow part, so that a port in use is told at once, and probes are answered.
        endpoint = None
        if settings.metrics_port is not None:
            # Here, since HTTP would make each other start longer.
            from service.metrics.endpoint import http_endpoint

            endpoint = started.enter_context(
                http_endpoint(settings.metrics_host, settings.metrics_port)
            )
        cluster = settings_from(ClusterSettings, options)
        server: Lifecycle
        is_native = False
        if cluster.cluster is not None:
            log = settings_from(LogSettings, options)
            server = resolve_name(_FRONT_END)(
                cluster, options.handler, for_handler, settings, log, str(given)
            )
        else:
            count = choose_worker_count(options.handler, for_handler, settings)
            settings = replace(settings, workers=count.workers)
            is_native = count.workers == 1
            server = _server(options.handler, for_handler, settings, given, count.reason)
        if endpoint is not None:
            endpoint.server = server
        with server, stopped_by_signals(server, is_native=is_native):
            cut_off = server.run()
    except WorkerError as error:
        return _fail(given.traced(str(error)), error.exit_code)
    except (ConfigurationError, OSError) as error:
        line, code = error_line(error)
        return _fail(given.traced(line), code)
    return 1 if cut_off else 0


def _server(
    handler: str,
    for_handler: HandlerSettings,
    settings: ServerSettings,
    given: GivenOptions,
    why_so_many: str,
) -> Lifecycle:
    """The server of this machine alone, with as many processes as the settings say."""
    if settings.processes > 1:
        return Supervisor(settings, given, why_so_many)
    # Here, since a supervisor needs no NumPy.
    from service.handlers.table import create_handler
    from service.server import Server

    return Server(
        settings,
        handler,
        lambda: create_handler(handler, for_handler),
        PortListener(settings),
        Placement(why=why_so_many, options_given=str(given)),
    )


def _fail(line: str, code: int) -> int:
    write_error(f"error: {line}")
    return code
