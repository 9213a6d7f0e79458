"""One of Locust's workers, in a process of its own: `python -m loadtest.load.worker_process`.

The parent writes a `WorkerSetup`. Locust's worker joins the master, which says by Locust's own
messages when users start and when all is over. Beside those travel the messages of a client
process (`ClientConfig`, `Stop`, and the answers to them), because Locust's statistics are rounded:
the master gets every request as it was.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import replace
from typing import Any

import loadtest.load.patched  # noqa: F401 # isort: skip
import gevent
from gevent.queue import Queue
from locust.env import Environment

from interfaces.messages import from_json, to_json
from loadtest.load.client_protocol import (
    CLOCK,
    HELLO,
    MESSAGE,
    PROGRESS_INTERVAL_S,
    ClientConfig,
    Gone,
    Hello,
    Loaded,
    Notice,
    Refused,
    Stop,
    WorkerSetup,
)
from loadtest.load.parent import Parent
from loadtest.load.users import ClosedLoopUser, Load, OpenLoopUser
from loadtest.records.machine import describe_machine, machine_id, own_version

# Locust itself waits for a minute.
_MASTER_TIMEOUT_S = 10.0
# Set by the master's message that starts users.
_NO_WAIT = 0.0


def main() -> None:
    """Join the master, take load after load, and tell the parent why it ends."""
    parent = Parent()
    if (setup := parent.receive([WorkerSetup])) is None:
        return
    try:
        gone = _Worker(setup, parent).serve()
    except ConnectionError:
        gone = Gone(f"no master answered at {setup.host}:{setup.port}", is_done=False)
    parent.tell(gone)
    # What Locust still has running has nothing to say any more.
    os._exit(0)


class _Worker:
    def __init__(self, setup: WorkerSetup, parent: Parent) -> None:
        self._setup = setup
        self._parent = parent
        self._inbox: Any = Queue()
        # A fault in a user must end this process, with its message, and not be counted as load.
        self._environment: Any = Environment(
            user_classes=[ClosedLoopUser, OpenLoopUser], catch_exceptions=False
        )
        self._runner = runner = self._environment.create_worker_runner(setup.host, setup.port)
        runner.register_message(MESSAGE, lambda msg, **_: self._inbox.put(msg.data["text"]))
        runner.register_message(CLOCK, self._tell_time)
        self._loads = 0
        self._reporter: Any = None

    def serve(self) -> Gone:
        """Take what the master says, until it says no more."""
        runner = self._runner
        hello = Hello(
            host_name=socket.gethostname(),
            machine_id=machine_id(),
            pid=os.getpid(),
            version=own_version(),
            machine=describe_machine(),
            images=self._setup.images,
        )
        runner.send_message(HELLO, {"text": to_json(hello)})
        self._parent.tell(Notice(f"joined the master at {self._setup.host}:{self._setup.port}"))
        gevent.spawn(self._watch_master)
        while (text := self._inbox.get()) is not None:
            message = from_json(text, [ClientConfig, Stop, Refused])
            if isinstance(message, Refused):
                return Gone(message.reason, is_done=False)
            if isinstance(message, ClientConfig):
                self._load(message)
            else:
                self._stop(message)
        if self._reporter is not None:
            return Gone("the master is gone, in the middle of a load", is_done=False)
        if not self._loads:
            return Gone("the master is gone, and there was no load", is_done=False)
        return Gone("the master has ended", is_done=True)

    def _load(self, config: ClientConfig) -> None:
        config = replace(config, image_paths=self._setup.image_paths)
        self._environment.load = load = Load(config)
        self._say(Loaded())
        self._parent.tell(
            Notice(f"load: {config.load.title} at {config.load.host}:{config.load.port}")
        )

        def report_progress() -> None:
            while True:
                self._say(load.progress(self._runner.user_count))
                gevent.sleep(PROGRESS_INTERVAL_S)

        self._reporter = gevent.spawn(report_progress)

    def _stop(self, stop: Stop) -> None:
        load: Load = self._environment.load
        load.end_at(stop.end_s)
        # Not by the master's own message, which is answered only after all that its users may wait.
        self._runner.stop_users(dict(self._runner.user_classes_count))
        self._environment.stop_timeout = _NO_WAIT
        self._reporter.kill()
        self._reporter = None
        for message in load.window(stop):
            self._say(message)
        self._loads += 1

    def _say(self, message: Any) -> None:
        self._runner.send_message(MESSAGE, {"text": to_json(message)})

    def _tell_time(self, msg: Any, **_: Any) -> None:
        self._runner.send_message(CLOCK, {**msg.data, "at_s": time.perf_counter()})

    def _watch_master(self) -> None:
        """End where it quits, or is silent for too long."""
        runner = self._runner
        while len(runner.greenlet):
            heard_s = runner.last_heartbeat_timestamp
            if heard_s is not None and time.time() - heard_s > _MASTER_TIMEOUT_S:
                break
            gevent.sleep(PROGRESS_INTERVAL_S)
        self._inbox.put(None)


if __name__ == "__main__":
    main()
