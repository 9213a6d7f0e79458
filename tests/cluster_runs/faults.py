"""What happens to the cluster while clients use it."""

from __future__ import annotations

import math
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cluster.registry import EXPIRES_AFTER_S
from loadtest.records.run import Check
from tests.cluster_runs.balanced_cluster import BalancedCluster
from tests.cluster_runs.load import CALL_TIMEOUT_MS
from tests.cluster_runs.ray_nodes import HEAD
from tests.cluster_runs.served_cluster import pause_s, require, wait_gone
from tests.deploy.haproxy import UP

_REPLACED_S = 60.0
_AWAY_S = 10.0
# As long as nodes may take to find that a head that is back does not know them.
_KNOWN_AGAIN_S = 20.0
# How long a front end waits for the answer to a call: its time limit, and half a second.
_CALL_S = CALL_TIMEOUT_MS / 1000 + 0.5


@dataclass
class Fault:
    """A fault that has happened.

    Attributes:
        what: in words.
        connections: of clients that it may take with it, each with the call that is under way.
        fails: calls that may get a declared error for it.
        of_what: which of both these are, in words.
        gain: the throughput that is to be had then, as a multiple of that before.
        at_s: from when on that is to come back, on the monotonic clock; None for when the fault
            was asked for.
        goes_on: whether the throughput is to stay until `at_s`.
        lasts_s: for how long after that its consequences may still come.
        checks: what was found on the way.
        mend: called while clients are at work still; makes checks of its own.
    """

    what: str
    connections: int = 0
    fails: int = 0
    of_what: str = ""
    gain: float = 1.0
    at_s: float | None = None
    goes_on: bool = False
    lasts_s: float = 0.0
    checks: Sequence[Check] = ()
    mend: Callable[[], Sequence[Check]] = field(default=lambda: ())


def kill_replica(cluster: BalancedCluster, rng: random.Random) -> Fault:
    """SIGKILL to the process of a replica."""
    victim = rng.choice(cluster.replica_processes())
    victim.kill()
    return Fault(f"SIGKILL to a replica (pid {victim.pid})", mend=lambda: _replaced(cluster))


def stop_replica(cluster: BalancedCluster, rng: random.Random) -> Fault:
    """SIGSTOP to the process of a replica, which then takes calls and answers none.

    Nothing tells it from a slow one before its calls are late. Until it has been silent for so long
    that it is no choice any more, it gets its share of the calls again each time that they are.
    """
    victim = rng.choice(cluster.replica_processes())
    clients = [cluster.connections_at(port) for port in cluster.ports]
    victim.suspend()
    share = sum(-(-count // cluster.replicas) for count in clients)
    rounds = math.ceil(EXPIRES_AFTER_S / _CALL_S)

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

    return Fault(
        f"SIGSTOP to a replica (pid {victim.pid})",
        fails=share * rounds,
        of_what=f"its share of {sum(clients)} calls in each of {rounds} rounds of their time limit",
        mend=mend,
    )


def kill_node(cluster: BalancedCluster, rng: random.Random) -> Fault:
    """End all processes of the node with the most replicas; the others have room for these."""
    del rng
    name, replicas = _fullest(cluster)
    cluster.nodes.kill(name)
    what = f"all processes of {name} killed, {replicas} replicas among them"
    return Fault(what, mend=lambda: _replaced(cluster))


def add_node(cluster: BalancedCluster, rng: random.Random) -> Fault:
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


def kill_front_end(cluster: BalancedCluster, rng: random.Random) -> Fault:
    """SIGKILL to a front end; HAProxy has its clients' next connections go to another one."""
    port = rng.choice(cluster.ports)
    connections = cluster.connections_at(port)
    cluster.front_ends[port].kill()
    return Fault(
        f"SIGKILL to the front end at port {port}",
        connections=connections,
        of_what="those of the dead front end",
        mend=lambda: _front_end_again(cluster, port),
    )


def drain_front_end(cluster: BalancedCluster, rng: random.Random) -> Fault:
    """SIGTERM to a front end, which ends once it has answered all that it has read."""
    port = rng.choice(cluster.ports)
    connections = cluster.connections_at(port)
    code = cluster.front_ends[port].terminate()
    return Fault(
        f"SIGTERM to the front end at port {port}",
        connections=connections,
        of_what="those of the front end, closed between two calls",
        # Where it cuts a call off that it has accepted, it says so by its exit code.
        checks=[
            Check("the front end has answered all it accepted", "exit code 0", f"{code}", not code)
        ],
        mend=lambda: _front_end_again(cluster, port),
    )


def _front_end_again(cluster: BalancedCluster, port: int) -> Sequence[Check]:
    cluster.start_front_end(port)
    cluster.front_ends[port].wait_ready()
    is_up = cluster.wait_for_state(port, UP, _REPLACED_S)
    return [
        Check("HAProxy has the front end again", UP, cluster.state_of(port), is_up),
        *_replaced(cluster),
    ]


def restart_head(cluster: BalancedCluster, rng: random.Random) -> Fault:
    """End all processes of Ray's head, with Serve's controller, and start it again later."""
    del rng
    before = {process.pid for process in cluster.replica_processes()}
    killed_s = time.monotonic()
    cluster.nodes.kill(HEAD)
    pause_s(killed_s + _AWAY_S)
    alive = before & {process.pid for process in cluster.replica_processes()}
    cluster.nodes.start_head()
    back_s = time.monotonic()

    def mend() -> Sequence[Check]:
        replaced = _replaced(cluster)
        after = {process.pid for process in cluster.replica_processes()}
        return [
            Check(
                "the head that is back has the replicas as they are",
                f"{len(before)} processes of before",
                f"{len(after & before)} of {len(after)}",
                after == before,
            ),
            *replaced,
        ]

    return Fault(
        f"all processes of Ray's head killed, and started again after {back_s - killed_s:.0f} s",
        at_s=back_s,
        goes_on=True,
        lasts_s=_KNOWN_AGAIN_S,
        checks=[
            Check(
                "replicas live on while the head is away",
                f"{len(before)}",
                f"{len(alive)}",
                alive == before,
            )
        ],
        mend=mend,
    )


def make_room_scarce(cluster: BalancedCluster) -> None:
    """Kill nodes until not all replicas have room; those that have it serve."""
    while cluster.room() >= cluster.replicas:
        name, _ = _fullest(cluster)
        cluster.nodes.kill(name)
        wanted = min(cluster.replicas, cluster.room())
        require(
            cluster.wait_for(wanted, _REPLACED_S),
            f"{wanted} replicas did not come back after {name} was killed",
        )


def _fullest(cluster: BalancedCluster) -> tuple[str, int]:
    """The node with the most replicas, and how many these are."""
    replicas = {process.pid for process in cluster.replica_processes()}
    counts = {
        name: len(replicas & {process.pid for process in node.processes()})
        for name, node in cluster.nodes.nodes.items()
    }
    name = max(counts, key=lambda one: counts[one])
    return name, counts[name]


def _replaced(cluster: BalancedCluster) -> list[Check]:
    is_whole = cluster.wait_for(cluster.replicas, _REPLACED_S)
    return [
        Check(
            "every front end has all replicas again",
            f"{cluster.replicas}, within {_REPLACED_S:g} s after the load",
            ", ".join(f"{cluster.serving(port)} at port {port}" for port in cluster.ports),
            is_whole,
        )
    ]
