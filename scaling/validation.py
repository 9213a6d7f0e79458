"""The simulation beside what was measured: the same arrivals, the same choices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.records.raw_files import read_table
from measurement.statistics import percentile
from scaling.errors import ScalingError
from scaling.json_file import read_json
from scaling.measure import CONFIGURED, FAILED, Point, calibrated, load_of
from scaling.replica import ANSWERED, REFUSED, ReplicaSettings
from scaling.simulation import Cluster, Load, simulate

RATE_SHARE, LATENCY_SHARE = 0.05, 0.20
"""How far the simulation may be off in throughput, and in TP50 and TP99."""
CALLS = "calls"
COLUMNS = ("point", "repeat", "due_s", "lag_ms", "latency_ms", "replica", "outcome")
_BATCHING = "xeon-2core-batching"
_OWN_SIDE = "thriftpipe"


@dataclass(frozen=True)
class Numbers:
    """Of one side of a comparison."""

    images_per_s: float
    tp50_ms: float
    tp99_ms: float
    refused_share: float = 0.0

    @classmethod
    def of(cls, latencies_ms: list[float], rate: float, refused_share: float = 0.0) -> Numbers:
        """From latencies in any order."""
        ordered = sorted(latencies_ms)
        return cls(rate, percentile(ordered, 0.5), percentile(ordered, 0.99), refused_share)


@dataclass(frozen=True)
class Comparison:
    """A measured point beside the simulation.

    Attributes:
        title: what was measured.
        measured: that.
        simulated: the same, simulated.
        answers: how many of the measured ones the latencies are of.
    """

    title: str
    measured: Numbers
    simulated: Numbers
    answers: int

    @property
    def errors(self) -> tuple[float, float, float]:
        """How far the simulation is off: throughput, TP50, TP99, as shares of what was measured."""
        pairs = (
            (self.simulated.images_per_s, self.measured.images_per_s),
            (self.simulated.tp50_ms, self.measured.tp50_ms),
            (self.simulated.tp99_ms, self.measured.tp99_ms),
        )
        one, two, three = (simulated / measured - 1 for simulated, measured in pairs)
        return one, two, three

    @property
    def holds(self) -> bool:
        """Whether all are within their bounds."""
        rate, *latencies = map(abs, self.errors)
        return rate <= RATE_SHARE and max(latencies) <= LATENCY_SHARE


def read_measured(folder: Path) -> dict[str, Any]:
    """run.json of the measured servers.

    Raises:
        ScalingError: there is none, it is damaged, or its servers were others.
    """
    path = folder / "run.json"
    document: dict[str, Any] = read_json(path, "python -m scaling measure")
    configured = {**document["configured"], "extras_ms": ()}
    if ReplicaSettings(**configured) != CONFIGURED:
        raise ScalingError(f"{path} is of servers with other settings: measure again")
    return document


def servers(folder: Path) -> Iterator[Comparison]:
    """The measured servers, point by point, over all repeats.

    Raises:
        ScalingError: nothing was measured, or calls failed.
    """
    run = read_measured(folder)
    rows = read_table(folder, CALLS)
    if failed := sum(row["outcome"] == FAILED for row in rows):
        raise ScalingError(f"{folder}: {failed} calls failed, so that nothing can be compared")
    window_s = float(run["settings"]["window_s"])
    for number, settings in enumerate(run["points"]):
        point = Point(**settings)
        real_ms: list[float] = []
        simulated_ms: list[float] = []
        real = simulated = refused = refused_there = due = 0
        windows = [window for window in run["windows"] if window["point"] == number]
        for window in windows:
            load = load_of(point, window["seed"], window_s)
            server, hops_ms = calibrated(run["calibrations"][window["repeat"]])
            outcome = simulate(point.cluster(server, hops_ms), load)
            simulated_ms += outcome.latencies_ms
            simulated += outcome.answered_in_window
            refused_there += outcome.counted[REFUSED]
            due += outcome.due
            for row in rows:
                if (int(row["point"]), int(row["repeat"])) != (number, window["repeat"]):
                    continue
                due_s, latency_ms = float(row["due_s"]), float(row["latency_ms"])
                is_counted = due_s >= load.warmup_s
                refused += is_counted and row["outcome"] == REFUSED
                if row["outcome"] != ANSWERED:
                    continue
                real += load.warmup_s <= due_s + latency_ms / 1000 < load.warmup_s + window_s
                if is_counted:
                    real_ms.append(latency_ms)
        length_s = window_s * len(windows)
        yield Comparison(
            point.title,
            Numbers.of(real_ms, real / length_s, refused / due),
            Numbers.of(simulated_ms, simulated / length_s, refused_there / due),
            len(real_ms),
        )


def runtime(results: Path) -> Iterator[Comparison]:
    """The runtime by itself: clients that wait, and a model that sleeps."""
    run = read_json(results / _BATCHING / "run.json")
    extras_ms: tuple[float, ...] = ()
    for part in run["parts"]:
        request: Mapping[str, Any] = part["request"]
        if request["window"] != "closed_loop" or not request["with_latencies"]:
            continue
        ((_, node),) = request["document"].items()
        windows = [
            window
            for window in run["windows"]
            if window["part"] == part["name"] and window["side"] == _OWN_SIDE
        ]
        latencies_ms = [ms for window in windows for ms in window["latencies_ms"]]
        rate = sum(w["items"] for w in windows) / sum(w["wall_s"] for w in windows)
        measured = Numbers.of(latencies_ms, rate)
        sleep_ms = 1000 * request["data"]
        if not extras_ms:
            # One client has no queue: what is beyond the sleep is what the system adds to it. It
            # sets the batches of the others, and proves nothing itself.
            extras_ms = tuple(max(0.0, ms - sleep_ms) for ms in latencies_ms)
            continue
        server = ReplicaSettings(
            instances=node["instance_num"],
            largest=node["measure_max"],
            batch_ms=sleep_ms,
            image_ms=0.0,
            smallest=node["measure_min"],
            timeout_ms=node["batching_timeout"],
            max_queue_ms=0,
            extras_ms=extras_ms,
        )
        cluster = Cluster(1, server)
        load = Load(clients=request["clients"], window_s=request["duration_s"])
        outcome = simulate(cluster, load)
        yield Comparison(
            f"runtime, {request['clients']} clients that wait",
            measured,
            Numbers.of(outcome.latencies_ms, outcome.images_per_s),
            len(latencies_ms),
        )
