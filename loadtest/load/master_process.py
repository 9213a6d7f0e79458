"""Locust's master, in a process of its own: `python -m loadtest.load.master_process`.

The parent writes a `MasterSetup`, which is answered by `Listening`. Locust knows the workers,
starts users on them, and notices when one of them is silent. What the load test and a worker say
to each other (`ClientConfig`, `Stop`, and the answers) goes through as it is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import loadtest.load.patched  # noqa: F401 # isort: skip
import gevent
from gevent.event import AsyncResult
from locust.dispatch import UsersDispatcher
from locust.env import Environment
from locust.exception import RPCError

from interfaces.messages import from_json
from loadtest.load.client_protocol import (
    CLOCK,
    HELLO,
    MESSAGE,
    PROGRESS_INTERVAL_S,
    Clock,
    Clocks,
    CompareClocks,
    FromWorker,
    Hello,
    Joined,
    Left,
    Listening,
    MasterSetup,
    Spawn,
    ToWorker,
)
from loadtest.load.parent import Parent
from loadtest.load.users import ClosedLoopUser, OpenLoopUser, stop_timeout_s

_EXCHANGES = 20
_EXCHANGE_TIMEOUT_S = 2.0


def main() -> None:
    """Serve one parent, until it closes the pipe; the workers end then, too."""
    parent = Parent()
    if (setup := parent.receive([MasterSetup])) is None:
        return
    try:
        master = _Master(setup, parent)
    # Locust exits where the port is taken.
    except (RPCError, OSError, SystemExit) as error:
        taken = "the port is taken" if isinstance(error, SystemExit) else str(error)
        parent.tell(Listening(0, taken))
        return
    master.serve()
    # What Locust still has running has nothing to say any more.
    os._exit(0)


class _Chosen(UsersDispatcher):
    """Gives users to the workers of this load, and to no others that have joined."""

    chosen: frozenset[str] = frozenset()

    def __init__(self, worker_nodes: list[Any], user_classes: list[Any]) -> None:
        super().__init__([node for node in worker_nodes if node.id in self.chosen], user_classes)


class _Master:
    def __init__(self, setup: MasterSetup, parent: Parent) -> None:
        self._parent = parent
        environment: Any = Environment(
            user_classes=[OpenLoopUser if setup.is_open else ClosedLoopUser],
            stop_timeout=stop_timeout_s(is_open=setup.is_open),
            dispatcher_class=_Chosen,
        )
        self._runner: Any = environment.create_master_runner(setup.host, setup.port)
        self._ids: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._exchanges: dict[int, Any] = {}
        self._lost: set[int] = set()
        self._has_users = self._is_stopping = False
        self._runner.register_message(HELLO, self._join)
        self._runner.register_message(MESSAGE, self._pass_on)
        self._runner.register_message(CLOCK, self._end_exchange)
        parent.tell(Listening(self._runner.server.port))

    def serve(self) -> None:
        """Do what the parent says, until it says no more."""
        watch = gevent.spawn(self._watch_workers)
        while message := self._parent.receive([ToWorker, CompareClocks, Spawn]):
            if isinstance(message, ToWorker):
                if message.worker not in self._lost:
                    text = {"text": message.text}
                    self._runner.send_message(MESSAGE, text, self._names[message.worker])
            elif isinstance(message, CompareClocks):
                self._parent.tell(Clocks(self._clocks(message.workers)))
            else:
                self._spawn(message)
        watch.kill()
        self._runner.quit()

    def _join(self, msg: Any, **_: Any) -> None:
        number = self._ids.setdefault(msg.node_id, len(self._ids) + 1)
        self._names[number] = msg.node_id
        self._parent.tell(Joined(number, from_json(msg.data["text"], [Hello])))

    def _pass_on(self, msg: Any, **_: Any) -> None:
        self._parent.tell(FromWorker(self._ids[msg.node_id], msg.data["text"]))

    def _spawn(self, spawn: Spawn) -> None:
        """Start users; those of the last load have ended, which Locust is told only now."""
        if self._has_users:
            self._is_stopping = True
            self._runner.stop()
            # A worker's answer comes after what it said when Locust stopped it.
            self._clocks([*self._names])
            self._is_stopping = False
        _Chosen.chosen = frozenset(self._names[worker] for worker in spawn.workers)
        self._has_users = True
        self._runner.start(spawn.users, spawn_rate=spawn.users)

    def _clocks(self, workers: Sequence[int]) -> list[Clock]:
        compared = [gevent.spawn(self._clock, worker) for worker in workers]
        gevent.joinall(compared)
        return [clock.value for clock in compared if clock.value is not None]

    def _clock(self, worker: int) -> Clock | None:
        """As NTP does it: the worker's clock beside the middle of an exchange, the shortest one."""
        best: Clock | None = None
        for _ in range(_EXCHANGES):
            number = len(self._exchanges)
            self._exchanges[number] = answer = AsyncResult()
            sent_s = time.perf_counter()
            self._runner.send_message(CLOCK, {"number": number}, self._names[worker])
            try:
                at_s, received_s = answer.get(timeout=_EXCHANGE_TIMEOUT_S)
            except gevent.Timeout:
                break
            within_s = (received_s - sent_s) / 2
            if best is None or within_s < best.within_s:
                best = Clock(worker, at_s - sent_s - within_s, within_s)
        return best

    def _end_exchange(self, msg: Any, **_: Any) -> None:
        self._exchanges[msg.data["number"]].set((msg.data["at_s"], time.perf_counter()))

    def _watch_workers(self) -> None:
        """Tell of each that has quit or is silent for longer than Locust allows."""
        while True:
            gevent.sleep(PROGRESS_INTERVAL_S)
            if self._is_stopping:
                continue
            there = {node.id for node in self._runner.clients.all if node.state != "missing"}
            for name, number in self._ids.items():
                if name not in there and number not in self._lost:
                    self._lost.add(number)
                    silent = name in self._runner.clients
                    self._parent.tell(Left(number, "is silent" if silent else "has quit"))


if __name__ == "__main__":
    main()
