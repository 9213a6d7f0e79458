"""A worker of the server: `python -m service.worker FD INDEX`, and then the server's arguments.

Only the supervisor starts it. FD is the worker's end of their line, INDEX its number.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Sequence

from service.arguments import parse_arguments
from service.checked_options import handler_settings, server_settings
from service.control import ControlChannel
from service.handed_arrivals import HandedArrivals
from service.handler import ConfigurationError
from service.handlers import create_handler
from service.heaps import share_heaps
from service.placement import Placement
from service.process import error_line, leave, log_to_stderr
from service.server import Server
from service.signals import leave_stop_to_supervisor
from service.worker_process import SHARED_FOLDER_VARIABLE


def main(arguments: Sequence[str]) -> int:
    """Serve what the supervisor hands over, until it says stop or is gone.

    Returns:
        The exit code, as the server's own.
    """
    leave_stop_to_supervisor()
    share_heaps()
    control = ControlChannel.inherited(int(arguments[0]))
    end_with_supervisor(control)
    index = int(arguments[1])
    options = parse_arguments(arguments[2:])
    log_to_stderr(options.log_level, f"worker {index} ")
    try:
        whole = server_settings(options)
        placement = Placement(
            index, whole.workers, os.getppid(), os.environ.get(SHARED_FOLDER_VARIABLE)
        )
        settings = placement.handler_settings(handler_settings(options))
        with Server(
            placement.server_settings(whole),
            options.handler,
            lambda: create_handler(options.handler, settings),
            HandedArrivals(control),
            placement,
        ) as server:
            cut_off = server.run()
    except (ConfigurationError, OSError) as error:
        line, code = error_line(error)
        control.send({"failed": line, "exit_code": code})
        return code
    control.send({"cut_off": cut_off})
    return 1 if cut_off else 0


def end_with_supervisor(control: ControlChannel) -> None:
    """End this process as soon as the supervisor is gone, whatever else it is doing."""

    def watch() -> None:
        poll = select.poll()
        # Without any event asked for, only the other end's closing is told.
        poll.register(control, 0)
        poll.poll()
        os._exit(1)

    threading.Thread(target=watch, name="watch-supervisor", daemon=True).start()


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
