"""`chaos`: parts of a cluster die, hang, come and go under load, and no call is lost for good."""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from loadtest.progress import Progress
from loadtest.records.run import Check, new_run
from tests.cluster_runs import faults, judging
from tests.cluster_runs.balanced_cluster import BalancedCluster
from tests.cluster_runs.load import UNREACHABLE, Attempt, ClusterLoad
from tests.cluster_runs.paced import paced_server
from tests.cluster_runs.ray_nodes import RayNodes
from tests.cluster_runs.results import finish
from tests.cluster_runs.served_cluster import pause_s, require
from tests.robustness.checking_clients import FAILED, HUNG, LATE, LOST, REFUSED, RIGHT, WRONG

CPUS_PER_NODE = 2
OUTCOMES = (RIGHT, REFUSED, LATE, FAILED, LOST, UNREACHABLE, HUNG, WRONG)
ATTEMPT_COLUMNS = ("phase", "call", "began_s", "ended_s", "outcome")
_FRONT_ENDS = 2
_WARM_UP_S = 2.0
_LOOK_S = 0.5
# Beyond the limit, so that a throughput that is back a little late shows how late.
_LONGEST_S = judging.WITHIN_S + 15.0
_SETTLE_S = 120.0

Inject = Callable[[BalancedCluster, random.Random], faults.Fault]

PHASES: dict[str, Inject] = {
    "killed-replica": faults.kill_replica,
    "hung-replica": faults.stop_replica,
    "killed-front-end": faults.kill_front_end,
    "drained-front-end": faults.drain_front_end,
    "restarted-head": faults.restart_head,
    "killed-node": faults.kill_node,
    "added-node": faults.add_node,
}


@dataclass(frozen=True)
class ChaosSettings:
    """What `chaos` does; attributes are the options of the same name."""

    phases: tuple[str, ...]
    duration_s: float
    nodes: int
    replicas: int
    clients: int
    item_ms: float
    gcs: str
    port: int
    seed: int


@dataclass(frozen=True)
class _Phase:
    name: str
    began_s: float
    fault_s: float
    over_s: float
    ended_s: float
    what: str
    verdict: judging.Verdict
    attempts: list[Attempt]
    checks: list[Check]


def chaos(settings: ChaosSettings, folder: Path, command: str, progress: Progress) -> None:
    """Run it and write the results.

    Raises:
        LoadTestError: a check failed, or a part does not start.
    """
    record = new_run("cluster-chaos", command, asdict(settings))
    run = _Chaos(settings, progress)
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as temporary:
        exits = run.run(Path(temporary))
    phases = [
        {
            "name": phase.name,
            "what": phase.what,
            "length_s": round(phase.ended_s - phase.began_s, 2),
            "fault_s": round(phase.fault_s - phase.began_s, 2),
            "over_s": round(phase.over_s - phase.began_s, 2),
            "outcomes": dict(Counter(attempt.outcome for attempt in phase.attempts)),
            "before_per_s": round(phase.verdict.before_per_s, 2),
            "after_per_s": round(phase.verdict.after_per_s, 2),
            "back_s": phase.verdict.back_s,
        }
        for phase in run.phases
    ]
    rows = [
        (
            *(phase.name, one.call),
            *(f"{one.began_s - phase.began_s:.3f}", f"{one.ended_s - phase.began_s:.3f}"),
            one.outcome,
        )
        for phase in run.phases
        for one in phase.attempts
    ]
    checks = [check for phase in run.phases for check in phase.checks]
    checks.append(
        Check("front ends end in order", "exit code 0", ", ".join(map(str, exits)), not any(exits))
    )
    progress.end_line()
    finish(record, folder, checks, {"phases": phases}, {"attempts": (ATTEMPT_COLUMNS, rows)})


class _Chaos:
    def __init__(self, settings: ChaosSettings, progress: Progress) -> None:
        self._settings = settings
        self._progress = progress
        self._random = random.Random(settings.seed)  # noqa: S311 (guards no secret)
        self.phases: list[_Phase] = []

    def run(self, folder: Path) -> list[int]:
        """All phases on one cluster; the exit codes of its front ends."""
        settings = self._settings
        arguments = paced_server(folder, settings.item_ms)
        with RayNodes(folder, settings.port + 10, CPUS_PER_NODE, settings.gcs) as nodes:
            self._tell(f"starting Ray's head and {settings.nodes} nodes")
            nodes.start_head()
            for _ in range(settings.nodes):
                nodes.add()
            self._tell(f"starting {settings.replicas} replicas and {_FRONT_ENDS} front ends")
            with BalancedCluster(
                nodes, arguments, settings.replicas, settings.port, _FRONT_ENDS, folder
            ) as cluster:
                cluster.start()
                for name in settings.phases:
                    self._tell(name)
                    self._phase(cluster, name)
                return cluster.stop()

    def _phase(self, cluster: BalancedCluster, name: str) -> None:
        if name == "added-node":
            faults.make_room_scarce(cluster)
        else:
            while cluster.room() < cluster.replicas + CPUS_PER_NODE:
                cluster.nodes.add()
            require(
                cluster.wait_for(cluster.replicas, _SETTLE_S),
                f"before {name} not all {cluster.replicas} replicas are there",
            )
        length_s = self._settings.duration_s
        seed = self._random.getrandbits(32)
        load = ClusterLoad([cluster.port], self._settings.clients, seed)
        began_s = time.monotonic()
        with load:
            pause_s(began_s + _WARM_UP_S + length_s)
            fault_s = time.monotonic()
            fault = PHASES[name](cluster, self._random)
            over_s = fault_s if fault.at_s is None else fault.at_s
            steady_s = began_s + _WARM_UP_S

            def verdict(end_s: float) -> judging.Verdict:
                seen = [*load.attempts]
                return judging.throughput(seen, steady_s, fault_s, end_s, fault.gain, over_s)

            self._until_back(verdict, over_s, max(length_s, fault.lasts_s))
            judged_s = time.monotonic()
            own = [*fault.checks, *fault.mend()]
            pause_s(time.monotonic() + _WARM_UP_S)
        attempts, found = load.attempts, verdict(judged_s)
        alive = [one.is_alive() for one in cluster.front_ends.values()]
        balances = cluster.balancer.is_alive()
        checks = [
            *judging.answer_checks(
                attempts,
                load.mistakes,
                connections=fault.connections,
                fails=fault.fails,
                of_what=fault.of_what,
            ),
            judging.throughput_check(found, fault.gain),
            *own,
            Check("front ends are alive", "all", f"{sum(alive)}", all(alive)),
            Check("HAProxy is alive", "1", f"{balances:d}", balances),
        ]
        if fault.goes_on:
            checks.append(judging.meanwhile_check(attempts, steady_s, fault_s, over_s))
        named = [Check(f"{name}: {c.name}", c.bound, c.measured, c.met) for c in checks]
        self.phases.append(
            _Phase(
                *(name, began_s, fault_s, over_s, judged_s, fault.what),
                found,
                attempts,
                named,
            )
        )
        for check in named:
            self._tell(f"{'met' if check.met else 'NOT MET'}: {check.name}: {check.measured}")

    def _until_back(
        self, verdict: Callable[[float], judging.Verdict], over_s: float, stays_s: float
    ) -> None:
        """Wait until the throughput is back, and has stayed so for so long, or it is late."""
        while (now_s := time.monotonic()) < over_s + _LONGEST_S + stays_s:
            pause_s(now_s + _LOOK_S)
            back_s = verdict(now_s).back_s
            if back_s is not None and now_s >= over_s + back_s + stays_s:
                return

    def _tell(self, line: str) -> None:
        self._progress.line(f"cluster: {line}")
