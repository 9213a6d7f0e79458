"""Real servers of ours on loopback, loaded and routed to as the simulation does it.

The servers run a model whose batches take a fixed time, so that two cores hold several of them. One
program stands for all front ends: it sends at the planned times of an open loop, chooses with the
rules of `scaling.routing`, and counts latencies from the planned times.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from loadtest.load.arrivals import poisson
from loadtest.measure.null_model import write_null_model
from loadtest.records import machine
from loadtest.servers.ports import free_ports
from loadtest.servers.server_process import ServerProcess, service_command
from scaling.replica import ANSWERED, REFUSED, ReplicaSettings
from scaling.routing import RULES, CountedView, Rule
from scaling.simulation import OWN, PERFECT, Cluster, Load
from service.client import AsyncClient, ClientError, OverloadedError

FAILED = "failed"
CONFIGURED = ReplicaSettings(instances=1, largest=4, batch_ms=80.0, image_ms=8.0, other_at_work=1)
"""The servers that are measured, before what the machine adds to their times."""
_LONE_CALLS = 20
# Twice a batch: while one is at work, the next one waits. More might be refused.
_CALLERS = 8
SATURATED_S = 5.0
"""How long one server gets as much as it takes, before each repeat."""
_WARMUP_S = 1.0
_READY_S = 120.0
_CONNECTIONS = 400
_SIDE = 16
_SCHEDULING = {os.SCHED_OTHER: "the usual", os.SCHED_RR: "real-time (`chrt -r`)"}
_DOCUMENT = """\
batching_timeout = {timeout_ms:g}
instance_num = {instances}

[decoder]
backend = "S[DecodeMat,ResizeMat,cvtColorMat,Mat2Tensor]"
instance_num = 1
resize_h = {side}
resize_w = {side}
color = "rgb"
next = "model"

[model]
backend = "S[FixedTime,TensorrtTensor]"
model = "{model}"
min = "1x3x{side}x{side}"
max = "{largest}x3x{side}x{side}"
largest = {largest}
batch_ms = {batch_ms:g}
image_ms = {image_ms:g}
"""


@dataclass(frozen=True)
class Point:
    """What is measured in one window of each repeat.

    Attributes:
        replicas: servers that take part.
        rule: how images are routed; a name of RULES.
        load_share: of what the servers take with full batches.
        front_ends: each knows its own calls only; one knows all.
    """

    replicas: int
    rule: str
    load_share: float
    front_ends: int = 1

    @property
    def title(self) -> str:
        """In words."""
        servers = "1 server" if self.replicas == 1 else f"{self.replicas} servers"
        rule = f", {self.rule}" * (self.replicas > 1)
        fronts = f", {self.front_ends} front ends" * (self.front_ends > 1)
        return f"{servers}{rule}{fronts}, load {100 * self.load_share:g} %"

    def cluster(self, server: ReplicaSettings, hops_ms: tuple[float, ...]) -> Cluster:
        """The same for the simulation."""
        view = PERFECT if self.front_ends == 1 else OWN
        return Cluster(
            self.replicas, server, self.rule, view, front_ends=self.front_ends, hops_ms=hops_ms
        )


POINTS = (
    Point(1, "random", 0.5),
    Point(1, "random", 0.8),
    Point(2, "random", 0.8),
    Point(2, "two choices", 0.8),
    Point(3, "random", 0.8),
    Point(3, "round robin", 0.8),
    Point(3, "two choices", 0.8),
    Point(3, "least", 0.8),
    Point(3, "least", 0.8, front_ends=3),
    Point(3, "two choices", 1.4),
)
"""Below what the servers take, with each rule, and one overload."""


@dataclass(frozen=True)
class Call:
    """An image that was sent.

    Attributes:
        due_s: planned time within the window's schedule.
        lag_ms: how late it was sent.
        latency_ms: from the planned time to the outcome.
        replica: where it was sent.
        outcome: ANSWERED, REFUSED or FAILED.
    """

    due_s: float
    lag_ms: float
    latency_ms: float
    replica: int
    outcome: str


def load_of(point: Point, seed: str, window_s: float) -> Load:
    """The load of a window, for the simulation and for the servers."""
    rate = point.load_share * point.replicas * CONFIGURED.images_per_s
    return Load(images_per_s=rate, warmup_s=_WARMUP_S, window_s=window_s, seed=seed)


def measure(
    points: Sequence[Point],
    repeats: int,
    window_s: float,
    seed: int,
    tell: Callable[[str], None],
    saturated_s: float = SATURATED_S,
) -> tuple[dict[str, Any], list[list[Any]]]:
    """Start the servers and measure all points, in each repeat once.

    Args:
        points: what is measured.
        repeats: how often; each has arrivals of its own.
        window_s: length of a window, after a second of warming up.
        seed: decides all arrivals and choices.
        tell: gets a line for each window.
        saturated_s: how long one server is saturated for calibration.

    Returns:
        What run.json holds, and the rows of the raw table: point, repeat, and a `Call`.
    """
    started = machine.utc_now()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        document = folder / "fixed_time.toml"
        text = _DOCUMENT.format(
            **asdict(CONFIGURED), model=write_null_model(folder, _SIDE), side=_SIDE
        )
        document.write_text(text, encoding="utf-8")
        arguments = ["--handler", "pipeline", "--config", str(document), "--workers", "1"]
        arguments += ["--backends", str(Path(__file__).with_name("fixed_time.py"))]
        arguments += ["--calibrate", "off"]
        replicas = max(point.replicas for point in points)
        first_port = free_ports(replicas)
        ports = range(first_port, first_port + replicas)
        servers = [
            stack.enter_context(
                ServerProcess(service_command(arguments, "127.0.0.1", port), "server", _READY_S)
            )
            for port in ports
        ]
        for server in servers:
            server.wait_ready()
        measured, rows = asyncio.run(
            _measure_all(ports, points, repeats, window_s, seed, tell, saturated_s)
        )
        for server in servers:
            server.require_alive()
            server.stop()
    head = {
        "kind": "scaling",
        "schema_version": 1,
        "started": started,
        "source": machine.describe_source(),
        "machine": machine.describe_machine(),
        "versions": machine.client_versions(),
        "settings": {"repeats": repeats, "window_s": window_s, "seed": seed},
        "scheduling": _SCHEDULING.get(os.sched_getscheduler(0), "another"),
        "document": machine.without_paths(text),
        "configured": asdict(CONFIGURED),
    }
    return {**head, **measured}, rows


async def _measure_all(
    ports: Sequence[int],
    points: Sequence[Point],
    repeats: int,
    window_s: float,
    seed: int,
    tell: Callable[[str], None],
    saturated_s: float,
) -> tuple[dict[str, Any], list[list[Any]]]:
    image = _image()
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                AsyncClient(port=port, retries=0, max_connections=_CONNECTIONS)
            )
            for port in ports
        ]
        rows: list[list[Any]] = []
        windows = []
        calibrations = []
        for repeat in range(repeats):
            # Once a repeat: what a machine adds depends on what else it does.
            calibrations.append(await _calibrate(clients[0], image, saturated_s))
            most = calibrations[-1]["saturated_images_per_s"]
            tell(f"repeat {repeat}: one server takes {most:.1f} images/s")
            # Back and forth, so that what drifts falls on all points alike.
            numbered = [*enumerate(points)]
            for number, point in numbered if repeat % 2 == 0 else reversed(numbered):
                load = load_of(point, f"{seed}/{number}/{repeat}", window_s)
                before = _machine_s()
                calls = await _window(clients[: point.replicas], point, load, image)
                foreign = _foreign_percent(before, _machine_s())
                windows.append({"point": number, "repeat": repeat, "seed": load.seed, **foreign})
                rows += [[number, repeat, *asdict(call).values()] for call in calls]
                tell(f"{point.title}: {len(calls)} images")
    found = {
        "calibrations": calibrations,
        "points": [asdict(point) for point in points],
        "windows": windows,
    }
    return found, rows


async def _calibrate(client: AsyncClient, image: bytes, saturated_s: float) -> dict[str, Any]:
    """What `calibrated` needs: latencies of a lone image, and throughput with full batches."""
    for _ in range(5):
        await client.classify(image)
    lone_ms = []
    for _ in range(_LONE_CALLS):
        start_s = time.monotonic()
        await client.classify(image)
        lone_ms.append(1000 * (time.monotonic() - start_s))
    end_s = time.monotonic() + saturated_s
    done = 0

    async def caller() -> None:
        nonlocal done
        while time.monotonic() < end_s:
            await client.classify(image)
            done += 1

    start_s = time.monotonic()
    await asyncio.gather(*(caller() for _ in range(_CALLERS)))
    images_per_s = done / (time.monotonic() - start_s)
    return {"lone_ms": lone_ms, "saturated_images_per_s": images_per_s}


def calibrated(calibration: Mapping[str, Any]) -> tuple[ReplicaSettings, tuple[float, ...]]:
    """The simulation's server, and its hops in ms, of what was measured of one server.

    Full batches one after the other say what a batch takes; a lone image's latency, less a batch of
    one, is the way there and back.
    """
    full_ms = 1000 * CONFIGURED.largest / calibration["saturated_images_per_s"]
    batch_ms = full_ms - CONFIGURED.largest * CONFIGURED.image_ms
    alone_ms = batch_ms + CONFIGURED.image_ms
    hops_ms = tuple(max(0.0, ms - alone_ms) for ms in calibration["lone_ms"])
    return replace(CONFIGURED, batch_ms=batch_ms), hops_ms


async def _window(
    clients: Sequence[AsyncClient], point: Point, load: Load, image: bytes
) -> list[Call]:
    """Send a window's images at their times, and wait for all outcomes."""
    fronts = [
        (RULES[point.rule](point.replicas, f"{load.seed}/{n}/routing"), CountedView(point.replicas))
        for n in range(point.front_ends)
    ]
    calls: list[Call] = []
    start_s = time.monotonic() + 0.05

    async def send(due_s: float, rule: Rule, view: CountedView) -> None:
        lag_ms = 1000 * (time.monotonic() - start_s - due_s)
        replica = rule(view)
        view.sent(replica)
        try:
            await clients[replica].classify(image)
            outcome = ANSWERED
        except OverloadedError:
            outcome = REFUSED
        except ClientError:
            outcome = FAILED
        view.answered(replica)
        latency_ms = 1000 * (time.monotonic() - start_s - due_s)
        calls.append(Call(due_s, lag_ms, latency_ms, replica, outcome))

    tasks = set()
    end_s = load.warmup_s + load.window_s
    for number, due_s in enumerate(poisson(load.images_per_s, 0.0, f"{load.seed}/0/arrivals")):
        if due_s >= end_s:
            break
        await asyncio.sleep(max(0.0, start_s + due_s - time.monotonic()))
        tasks.add(asyncio.create_task(send(due_s, *fronts[number % point.front_ends])))
    await asyncio.gather(*tasks)
    return sorted(calls, key=lambda call: call.due_s)


def _image() -> bytes:
    """A small JPEG: its decoding is no part of what is asked here."""
    import cv2
    import numpy as np

    done, data = cv2.imencode(".jpg", np.full((_SIDE, _SIDE, 3), (40, 60, 200), np.uint8))
    assert done  # noqa: S101 (an image of one colour)
    return bytes(data)


def _machine_s() -> tuple[float, float, float]:
    """Now, CPU time of this whole machine without idle time, and that of this program's tree."""
    times = psutil.cpu_times()
    busy_s = sum(times[:8]) - times.idle - getattr(times, "iowait", 0.0)
    own = psutil.Process()
    tree_s = 0.0
    for process in (own, *own.children(recursive=True)):
        try:
            tree_s += sum(process.cpu_times()[:2])
        except psutil.Error:
            continue
    return time.monotonic(), busy_s, tree_s


def _foreign_percent(
    before: tuple[float, float, float], after: tuple[float, float, float]
) -> dict[str, float]:
    length_s, busy_s, own_s = (b - a for a, b in zip(before, after, strict=True))
    return {
        "foreign_percent": 100 * max(0.0, busy_s - own_s) / length_s,
        "own_percent": 100 * own_s / length_s,
    }
