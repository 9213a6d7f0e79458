"""`chaos`: parts of a cluster die, hang, come and go under load, and no call is lost for good."""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from loadtest.progress import Progress
from loadtest.records.run import Check, new_run
from tests.cluster_runs import faults, judging
from tests.cluster_runs.load import UNREACHABLE, Attempt, ClusterLoad
from tests.cluster_runs.paced import paced_server
from tests.cluster_runs.ray_nodes import RayNodes
from tests.cluster_runs.results import finish
from tests.cluster_runs.served_cluster import ServedCluster, pause_s, require
from tests.robustness.checking_clients import FAILED, HUNG, LATE, LOST, REFUSED, RIGHT, WRONG

CPUS_PER_NODE = 2
OUTCOMES = (RIGHT, REFUSED, LATE, FAILED, LOST, UNREACHABLE, HUNG, WRONG)
ATTEMPT_COLUMNS = ("phase", "call", "port", "began_s", "ended_s", "outcome")
_FRONT_ENDS = 2
_WARM_UP_S = 2.0
_LOOK_S = 0.5
# Beyond the limit, so that a throughput that is back a little late shows how late.
_LONGEST_S = judging.WITHIN_S + 15.0
_SETTLE_S = 120.0
# Its calls end after 2 s, and Ray Serve ends it after 3 checks of 3.3 s.
_ROUNDS_OF_A_HANG = 5

Inject = Callable[[ServedCluster, random.Random], faults.Fault]

PHASES: dict[str, Inject] = {
    "killed-replica": faults.kill_replica,
    "hung-replica": faults.stop_replica,
    "killed-front-end": faults.kill_front_end,
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
            "outcomes": dict(Counter(attempt.outcome for attempt in phase.attempts)),
            "before_per_s": round(phase.verdict.before_per_s, 2),
            "after_per_s": round(phase.verdict.after_per_s, 2),
            "back_s": phase.verdict.back_s,
        }
        for phase in run.phases
    ]
    rows = [
        (
            *(phase.name, one.call, one.port),
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
        ports = [settings.port + number for number in range(_FRONT_ENDS)]
        with RayNodes(folder, settings.port + 10, CPUS_PER_NODE, settings.gcs) as nodes:
            self._tell(f"starting Ray's head and {settings.nodes} nodes")
            nodes.start_head()
            for _ in range(settings.nodes):
                nodes.add()
            self._tell(f"starting {settings.replicas} replicas and {_FRONT_ENDS} front ends")
            with ServedCluster(nodes, arguments, settings.replicas, ports, folder) as cluster:
                cluster.start()
                for name in settings.phases:
                    self._tell(name)
                    self._phase(cluster, name)
                return cluster.stop()

    def _phase(self, cluster: ServedCluster, name: str) -> None:
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
        load = ClusterLoad(cluster.ports, self._settings.clients, seed)
        began_s = time.monotonic()
        with load:
            pause_s(began_s + _WARM_UP_S + length_s)
            asked_s = time.monotonic()
            fault = PHASES[name](cluster, self._random)
            fault_s = asked_s if fault.at_s is None else fault.at_s
            steady_s = began_s + _WARM_UP_S
            self._until_back(load, steady_s, fault_s, fault.gain)
            judged_s = time.monotonic()
            own = [*fault.mend()]
            pause_s(time.monotonic() + _WARM_UP_S)
        attempts = load.attempts
        verdict = judging.throughput(attempts, steady_s, fault_s, judged_s, fault.gain)
        may_lose, of_what = self._may_lose(name, attempts, fault, fault_s)
        checks = [
            *judging.answer_checks(attempts, load.mistakes, may_lose=may_lose, of_what=of_what),
            judging.throughput_check(verdict, fault.gain),
            *own,
            Check(
                "front ends are alive",
                "all",
                f"{sum(one.is_alive() for one in cluster.front_ends.values())}",
                all(one.is_alive() for one in cluster.front_ends.values()),
            ),
        ]
        named = [Check(f"{name}: {c.name}", c.bound, c.measured, c.met) for c in checks]
        self.phases.append(
            _Phase(name, began_s, fault_s, judged_s, fault.what, verdict, attempts, named)
        )
        for check in named:
            self._tell(f"{'met' if check.met else 'NOT MET'}: {check.name}: {check.measured}")

    def _until_back(self, load: ClusterLoad, steady_s: float, fault_s: float, gain: float) -> None:
        """Wait until the throughput is back, and stays so for the phase's length, or it is late."""
        length_s = self._settings.duration_s
        while (now_s := time.monotonic()) < fault_s + _LONGEST_S + length_s:
            pause_s(now_s + _LOOK_S)
            seen = [*load.attempts]
            back_s = judging.throughput(seen, steady_s, fault_s, now_s, gain).back_s
            if back_s is not None and now_s >= fault_s + back_s + length_s:
                return

    def _may_lose(
        self, name: str, attempts: Sequence[Attempt], fault: faults.Fault, fault_s: float
    ) -> tuple[int, str]:
        """How many attempts the fault may take with it, and which these are."""
        if name in ("restarted-head", "added-node"):
            return 0, "since no part that serves is gone"
        if fault.port is not None:
            lost = judging.in_flight(attempts, fault_s, fault.port)
            return lost, "under way at the dead front end"
        if name == "hung-replica":
            # Nothing tells a replica that is stopped from a slow one before its calls are late.
            lost = self._settings.clients * _ROUNDS_OF_A_HANG
            return lost, f"what clients sent it in {_ROUNDS_OF_A_HANG} rounds of their time limit"
        return judging.in_flight(attempts, fault_s), "under way when it died"

    def _tell(self, line: str) -> None:
        self._progress.line(f"cluster: {line}")
