"""The numbers of all replicas together, which never fall where one of them ends."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

from cluster.ask_replicas import ask_all
from cluster.replicas import Replica
from interfaces.stats import Stats, WorkerStats, added, without_now
from interfaces.structs import from_struct

_ANSWER_S = 1.0


class ReplicaStats:
    """What replicas have told of themselves. For all threads.

    Nodes and stages are theirs; calls, images and refusals are the front end's own, which has
    counted each once however many replicas it was given to.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: dict[str, Stats] = {}
        self._ended = Stats()

    def sum(self, replicas: Sequence[Replica]) -> Stats:
        """Of these replicas, each as one worker, and of those that are gone what they counted.

        One that does not answer is in it with what it told last.
        """
        answers = ask_all(replicas, "stats", _ANSWER_S)
        with self._lock:
            workers: list[WorkerStats] = []
            for index, (replica, answer) in enumerate(zip(replicas, answers, strict=True)):
                name = replica.entry.name
                if answer is not None:
                    self._told[name] = _of_replica(from_struct(Stats, answer))
                if told := self._told.get(name):
                    workers += [replace(one, worker=index) for one in told.workers]
            there = {replica.entry.name for replica in replicas}
            for name in self._told.keys() - there:
                gone = replace(without_now(self._told.pop(name)), worker_restarts=1)
                self._ended = added(self._ended, gone)
            whole = reduce(added, self._told.values(), self._ended)
            return replace(whole, workers=workers)


def _of_replica(told: Stats) -> Stats:
    """Of a replica's numbers, those that its front ends cannot count themselves."""
    return Stats(stages=told.stages, nodes=told.nodes, workers=told.workers)
