"""Locust users in a process of their own: `python -m loadtest.load.client_process`.

Importing locust patches the sockets of the whole process, so nothing else imports this module.
The parent writes a `ClientConfig`, which is answered by `Loaded`, then `Start`, and at the end
`Stop`. This process answers with a `ProgressReport` every 0.2 s and, after `Stop`, with
`RequestRows` of what belongs to the window and `End`. Then it is ready for the next
`ClientConfig`, because importing locust takes longer than a short window.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any, TextIO, TypeVar

import gevent
from gevent.fileobject import FileObject
from locust.env import Environment

from interfaces.messages import from_json, to_json
from loadtest.load.client_protocol import (
    LATENCIES_PER_REPORT,
    PROGRESS_INTERVAL_S,
    RECORDS_PER_LINE,
    ClientConfig,
    End,
    Loaded,
    ProgressReport,
    RequestRows,
    Start,
    Stop,
)
from loadtest.load.users import DRAIN_S, ClosedLoopUser, Load, OpenLoopUser

_STOP_TIMEOUT_S = 5.0

_Message = TypeVar("_Message", bound="ClientConfig | Start | Stop")


def _emit(channel: TextIO, message: Loaded | ProgressReport | RequestRows | End) -> None:
    channel.write(to_json(message) + "\n")
    channel.flush()


def _receive(commands: Any, kind: type[_Message]) -> _Message | None:
    """The next message of the parent, which must be of this kind; None where the parent is gone."""
    line = commands.readline()
    if not line:
        return None
    message: _Message = from_json(line, [kind])
    return message


def main() -> None:
    """Serve one parent: load after load, until it closes the pipe."""
    # Whatever a library prints must not get between the events.
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    commands = FileObject(sys.stdin.fileno(), "r", closefd=False)
    while config := _receive(commands, ClientConfig):
        if not _serve(config, commands, channel):
            return


def _serve(config: ClientConfig, commands: Any, channel: TextIO) -> bool:
    """One load, from `Start` to `End`; False where the parent is gone."""
    is_open = config.load.arrivals_per_s is not None
    # A fault in a user must end this process, with its message, and not be counted as load.
    environment: Any = Environment(
        user_classes=[OpenLoopUser if is_open else ClosedLoopUser],
        stop_timeout=_STOP_TIMEOUT_S + (DRAIN_S if is_open else 0.0),
        catch_exceptions=False,
    )
    environment.load = load = Load(config)
    runner = environment.create_local_runner()
    _emit(channel, Loaded())

    if _receive(commands, Start) is None:
        return False

    def report_progress() -> None:
        told = 0
        while True:
            recent_ms = load.some_latencies_ms(told, LATENCIES_PER_REPORT)
            told = len(load.rows)
            _emit(
                channel,
                ProgressReport(
                    at_s=time.perf_counter(),
                    users=runner.user_count,
                    completed=told,
                    failed=load.failed_requests,
                    connection_failures=load.connection_failures,
                    last_error=load.last_error,
                    recent_ms=recent_ms,
                ),
            )
            gevent.sleep(PROGRESS_INTERVAL_S)

    runner.start(config.users, spawn_rate=config.users)
    reporter = gevent.spawn(report_progress)
    stop = _receive(commands, Stop)
    load.end_s = 0.0 if stop is None else min(stop.end_s, time.perf_counter())
    runner.quit()
    reporter.kill()
    if stop is None:
        return False
    kept = [row for row in load.rows if stop.takes(row, is_open=is_open)]
    for start in range(0, len(kept), RECORDS_PER_LINE):
        _emit(channel, RequestRows(kept[start : start + RECORDS_PER_LINE]))
    _emit(channel, End(stop.right_images(load.rows)))
    return True


if __name__ == "__main__":
    main()
