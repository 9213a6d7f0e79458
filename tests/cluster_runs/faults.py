"""What happens to the cluster while clients use it."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from loadtest.records.run import Check
from tests.cluster_runs.ray_nodes import HEAD
from tests.cluster_runs.served_cluster import ServedCluster, pause_s, require, wait_gone

_REPLACED_S = 60.0
_KNOWN_AGAIN_S = 20.0


@dataclass
class Fault:
    """A fault that has happened.

    Attributes:
        what: in words.
        port: of the front end that it took with it; None for none.
        gain: the throughput that is to be had then, as a multiple of that before.
        at_s: when it began, on the monotonic clock; None for when it was asked for.
        mend: called while clients are at work still; makes checks of its own.
    """

    what: str
    port: int | None = None
    at_s: float | None = None
    gain: float = 1.0
    mend: Callable[[], Sequence[Check]] = field(default=lambda: ())


def kill_replica(cluster: ServedCluster, rng: random.Random) -> Fault:
    """SIGKILL to the process of a replica."""
    victim = rng.choice(cluster.replica_processes())
    victim.kill()
    return Fault(f"SIGKILL to a replica (pid {victim.pid})", mend=lambda: _replaced(cluster))


def stop_replica(cluster: ServedCluster, rng: random.Random) -> Fault:
    """SIGSTOP to the process of a replica, which then takes calls and answers none."""
    victim = rng.choice(cluster.replica_processes())
    victim.suspend()

    def mend() -> Sequence[Check]:
        checks = _replaced(cluster)
        is_gone = wait_gone(victim, _REPLACED_S)
        if not is_gone:
            os.kill(victim.pid, signal.SIGKILL)
        return [
            *checks,
            Check(
                "Ray ends the stopped process",
                f"within {_REPLACED_S:g} s",
                "gone" if is_gone else "it was left, and killed here",
                is_gone,
            ),
        ]

    return Fault(f"SIGSTOP to a replica (pid {victim.pid})", mend=mend)


def kill_node(cluster: ServedCluster, rng: random.Random) -> Fault:
    """End all processes of the node with the most replicas; the others have room for these."""
    del rng
    name, replicas = _fullest(cluster)
    cluster.nodes.kill(name)
    what = f"all processes of {name} killed, {replicas} replicas among them"
    return Fault(what, mend=lambda: _replaced(cluster))


def add_node(cluster: ServedCluster, rng: random.Random) -> Fault:
    """One more node, where there are more replicas to be than there is room for."""
    del rng
    before = cluster.serving(cluster.ports[0])
    name = cluster.nodes.add()
    wanted = cluster.replicas
    return Fault(
        f"{name} added: room for all {wanted} replicas, of which {before} had some",
        gain=wanted / before,
        at_s=time.monotonic(),
        mend=lambda: _replaced(cluster),
    )


def kill_front_end(cluster: ServedCluster, rng: random.Random) -> Fault:
    """SIGKILL to a front end; its clients go to another one."""
    port = rng.choice(cluster.ports)
    cluster.front_ends[port].kill()

    def mend() -> Sequence[Check]:
        cluster.start_front_end(port)
        cluster.front_ends[port].wait_ready()
        return _replaced(cluster)

    return Fault(f"SIGKILL to the front end at port {port}", port, mend=mend)


def restart_head(cluster: ServedCluster, rng: random.Random) -> Fault:
    """End all processes of Ray's head, with Serve's controller, and start it again later."""
    del rng
    before = {process.pid for process in cluster.replica_processes()}
    cluster.nodes.kill(HEAD)

    def mend() -> Sequence[Check]:
        alive = before & {process.pid for process in cluster.replica_processes()}
        cluster.nodes.start_head()
        # As long as nodes may take to find that it does not know them.
        pause_s(time.monotonic() + _KNOWN_AGAIN_S)
        replaced = _replaced(cluster)
        after = {process.pid for process in cluster.replica_processes()}
        return [
            Check(
                "replicas live on while the head is away",
                f"{len(before)}",
                f"{len(alive)}",
                alive == before,
            ),
            Check(
                "the head that is back has the replicas as they are",
                f"{len(before)} processes of before",
                f"{len(after & before)} of {len(after)}",
                after == before,
            ),
            *replaced,
        ]

    return Fault("all processes of Ray's head killed, and started again", mend=mend)


def make_room_scarce(cluster: ServedCluster) -> None:
    """Kill nodes until not all replicas have room; those that have it serve."""
    while cluster.room() >= cluster.replicas:
        name, _ = _fullest(cluster)
        cluster.nodes.kill(name)
        wanted = min(cluster.replicas, cluster.room())
        require(
            cluster.wait_for(wanted, _REPLACED_S),
            f"{wanted} replicas did not come back after {name} was killed",
        )


def _fullest(cluster: ServedCluster) -> tuple[str, int]:
    """The node with the most replicas, and how many these are."""
    replicas = {process.pid for process in cluster.replica_processes()}
    counts = {
        name: len(replicas & {process.pid for process in node.processes()})
        for name, node in cluster.nodes.nodes.items()
    }
    name = max(counts, key=lambda one: counts[one])
    return name, counts[name]


def _replaced(cluster: ServedCluster) -> list[Check]:
    is_whole = cluster.wait_for(cluster.replicas, _REPLACED_S)
    return [
        Check(
            "every front end has all replicas again",
            f"{cluster.replicas}, within {_REPLACED_S:g} s after the load",
            ", ".join(f"{cluster.serving(port)} at port {port}" for port in cluster.ports),
            is_whole,
        )
    ]
