"""A worker of the server: `python -m service.worker FD INDEX`, and then the server's arguments.

Only the supervisor starts it. FD is the worker's end of their line, INDEX its number.
"""

from __future__ import annotations

import logging
import math
import os
import select
import sys
import threading
from collections.abc import Sequence

from interfaces.options import settings_from
from service.errors import ConfigurationError
from service.handlers.table import create_handler
from service.images.decode_memory import DECODE_MEMORY
from service.logs.log_settings import LogSettings
from service.logs.start import start_log
from service.malloc_arenas import limit_arenas
from service.options.server_arguments import parse_arguments
from service.options.validation import handler_settings, server_settings
from service.processes.control_channel import ControlChannel
from service.processes.heartbeats import BEATS, Heartbeats
from service.processes.placement import Placement
from service.processes.process import error_line, leave
from service.processes.signals import leave_stop_to_supervisor
from service.processes.worker_listener import WorkerListener
from service.processes.worker_messages import WORKER_MESSAGES, Drained, StartFailure
from service.processes.worker_process import (
    OPTIONS_GIVEN_VARIABLE,
    SHARED_FOLDER_VARIABLE,
    WHY_SO_MANY_VARIABLE,
)
from service.processes.worker_stats import WorkerStatsLine
from service.server import Server

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Serve what the supervisor hands over, until it says stop or is gone.

    Returns:
        The exit code, as the server's own.
    """
    leave_stop_to_supervisor()
    limit_arenas()
    control = ControlChannel.inherited(int(arguments[0]), WORKER_MESSAGES)
    index = int(arguments[1])
    options = parse_arguments(arguments[2:])
    start_log(settings_from(LogSettings, options), f"worker {index}")
    stats = WorkerStatsLine(control)
    listener = WorkerListener(control, stats)
    watch = SupervisorWatch(control, listener, options.hang_timeout_s)
    watch.start()
    try:
        whole = server_settings(options)
        placement = Placement(
            index,
            whole.processes,
            os.getppid(),
            os.environ.get(SHARED_FOLDER_VARIABLE),
            os.environ[WHY_SO_MANY_VARIABLE],
            os.environ[OPTIONS_GIVEN_VARIABLE],
        )
        settings = placement.handler_settings(handler_settings(options))
        own = placement.server_settings(whole)
        DECODE_MEMORY.limit_bytes = own.max_decoded_bytes
        with Server(
            own,
            options.handler,
            lambda: create_handler(options.handler, settings),
            listener,
            placement,
            stats.whole,
        ) as server:
            watch.server = server
            stats.source = server.report
            cut_off = server.run()
    except (ConfigurationError, OSError) as error:
        failure = StartFailure(*error_line(error))
        control.send(failure)
        return failure.exit_code
    stats.report()
    control.send(Drained(cut_off))
    return 1 if cut_off else 0


class SupervisorWatch(threading.Thread):
    """Ends this process as soon as the supervisor is gone, whatever else it is doing.

    If the supervisor is there but hangs, this worker serves the connections that it has, and says
    through `health` that it gets no others.

    Args:
        control: the line to the supervisor.
        listener: it counts the supervisor's beats.
        hang_timeout_s: how long those may stay away; 0 for no limit.

    Attributes:
        server: what says so, once there is one.
    """

    def __init__(
        self, control: ControlChannel, listener: WorkerListener, hang_timeout_s: float
    ) -> None:
        super().__init__(name="watch-supervisor", daemon=True)
        self.server: Server | None = None
        self._control = control
        self._listener = listener
        self._hang_timeout_s = hang_timeout_s
        self._is_alone = False

    def run(self) -> None:
        """Watch until there is an end."""
        pause_s = Heartbeats(self._hang_timeout_s).pause_s
        pause_ms = None if math.isinf(pause_s) else pause_s * 1000
        poll = select.poll()
        # Without any event asked for, only the other end's closing is told.
        poll.register(self._control, 0)
        heard, missed = self._listener.beats, 0
        while not poll.poll(pause_ms):
            beats = self._listener.beats
            # The first beat comes when this worker is ready, and none once it is to stop. A message
            # that this worker has not read shows that the supervisor is not silent.
            is_silent = beats == heard and not self._control.has_message()
            missed = missed + 1 if beats and is_silent else 0
            heard = beats
            self._tell(missed)
        os._exit(1)

    def _tell(self, missed: int) -> None:
        if self.server is None:
            return
        if missed == BEATS:
            reason = f"the supervisor hangs: silent for {self._hang_timeout_s:g} s"
            self._is_alone = True
            # First, since a reader of the log may ask for the health at once.
            self.server.trouble(reason)
            _log.error("%s; open connections are served, new ones are not let in", reason)
        elif not missed and self._is_alone:
            self._is_alone = False
            self.server.trouble("")
            _log.info("the supervisor is there again")


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
