"""What a hop to a replica costs, by the way it takes: `python -m tests.cluster.compare_hops`.

A caller sends images to a replica that answers at once, from 10 threads or tasks and from 64, over

* `handle`: a DeploymentHandle of Ray Serve's,
* `actor`: an asynchronous method of a plain Ray actor,
* `thrift`: a connection of `cluster.hop` to the replica's own server, the null handler's,
* `thrift x4`: the same with four images a call, of one caller each: about the most that gathering
  calls could gain, since the gathering itself is not in it;
* `thrift gathered`: as front ends do it (`cluster.forwarder`), several calls in a message where
  many come.

All run on one local Ray, in turns (A B C, C B A, ...). For each it writes the median latency of a
call, images a second, and CPU time an image: of the caller, of the replica and of Ray's own
processes, as far as they are busier than without calls.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

import psutil

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray import serve

from cluster.applications import SERVE_LOG
from cluster.forwarder import Forwarder
from cluster.hop import HopConnection
from cluster.infer_arguments import options_piece, requests_in_pieces
from cluster.ray_names import NAMESPACE
from cluster.replica_entry import ReplicaEntry
from cluster.replica_server import ReplicaServer
from cluster.replicas import Replicas
from idl import inference
from service.handlers.deadline import Deadline
from service.handlers.handler_settings import HandlerSettings
from service.options.server_settings import ServerSettings

_GATHERED = 4
_CALLERS = (10, 64)
_HOUR_S = 3600.0


class NullReplica:
    """Answers at once, over Serve, as an actor, and over Thrift."""

    def __init__(self) -> None:
        settings = ServerSettings(port=0, max_queue_ms=0)
        self._server = ReplicaServer("null", HandlerSettings(), settings, "")
        self._address = self._server.start()

    async def classify(self, image: bytes) -> tuple[str, float]:
        return "tench", 1.0 if image else 0.0

    def address(self) -> tuple[str, int]:
        return self._address

    def pid(self) -> int:
        return os.getpid()


@dataclass
class Measured:
    """One window."""

    way: str
    callers: int
    images: int
    images_per_s: float
    median_ms: float
    caller_cpu_ms: float
    replica_cpu_ms: float
    ray_cpu_ms: float


def _cpu_s(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        try:
            total += sum(process.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
    return total


class Window:
    """Runs callers for a while, and takes the CPU time of all processes."""

    def __init__(self, replica_pid: int, seconds: float) -> None:
        self._seconds = seconds
        own = psutil.Process()
        self._own = [own]
        self._replica = [psutil.Process(replica_pid)]
        self._ray = [one for one in own.children(recursive=True) if one.pid != replica_pid]
        self._idle_share = self._busy_share()

    def _busy_share(self) -> float:
        before = _cpu_s(self._ray)
        threading.Event().wait(2.0)
        return (_cpu_s(self._ray) - before) / 2.0

    def measure(
        self, way: str, callers: int, each: int, run: Callable[[float], list[float]]
    ) -> Any:
        groups = self._own, self._replica, self._ray
        began_s, before = time.monotonic(), [_cpu_s(group) for group in groups]
        latencies_s = run(began_s + self._seconds)
        took_s = time.monotonic() - began_s
        own, replica, others = (
            _cpu_s(group) - earlier for group, earlier in zip(groups, before, strict=True)
        )
        images = len(latencies_s) * each
        per_image = 1000 / images
        return Measured(
            way,
            callers,
            images,
            images / took_s,
            statistics.median(latencies_s) * 1000,
            own * per_image,
            replica * per_image,
            max(0.0, others - self._idle_share * took_s) * per_image,
        )


def _in_threads(callers: int, make: Callable[[], Callable[[], object]]) -> Any:
    def run(until_s: float) -> list[float]:
        latencies_s: list[float] = []

        def call_on() -> None:
            call = make()
            while (began_s := time.monotonic()) < until_s:
                call()
                latencies_s.append(time.monotonic() - began_s)

        threads = [threading.Thread(target=call_on) for _ in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return latencies_s

    return run


def _in_tasks(callers: int, call: Callable[[], Awaitable[object]]) -> Any:
    async def all_of_them(until_s: float) -> list[float]:
        latencies_s: list[float] = []

        async def call_on() -> None:
            while (began_s := time.monotonic()) < until_s:
                await call()
                latencies_s.append(time.monotonic() - began_s)

        await asyncio.gather(*(call_on() for _ in range(callers)))
        return latencies_s

    return lambda until_s: asyncio.run(all_of_them(until_s))


def _over_thrift(address: tuple[str, int], image: bytes, images: int) -> Callable[[], Any]:
    def make() -> Callable[[], object]:
        connection = HopConnection(*address)
        requests = [inference.InferenceParams(str(index), image) for index in range(images)]

        def call() -> object:
            pieces = [*requests_in_pieces(requests), options_piece(inference.InferOptions())]
            until_s = time.monotonic() + _HOUR_S
            result = connection.call("infer_images", pieces, until_s, None)
            assert len(result.success) == images
            return result

        return call

    return make


def _over_gathering(address: tuple[str, int], image: bytes) -> Callable[[], Any]:
    replicas = Replicas()
    replicas.update([ReplicaEntry("replica", *address, "node", 0, "release")])
    forwarder = Forwarder(replicas)
    request = [inference.InferenceParams("0", image)]

    def call() -> object:
        deadline = Deadline(time.monotonic() + _HOUR_S, 0)
        [result] = forwarder.infer(request, inference.InferOptions(), deadline)
        assert result.error is None
        return result

    return lambda: call


def main() -> None:
    """Measure, and write a JSON line for each window."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--image-bytes", type=int, default=40_000)
    options = parser.parse_args()
    image = os.urandom(options.image_bytes)
    ray.init(
        address="local",
        namespace=NAMESPACE,
        include_dashboard=False,
        num_cpus=4,
        log_to_driver=False,
    )
    # As the cluster's own: no line of a log for each call.
    serve.start(proxy_location="Disabled", logging_config=SERVE_LOG)
    handle: Any = serve.run(
        serve.deployment(NullReplica).options(max_ongoing_requests=1000).bind(),
        route_prefix=None,
        logging_config=SERVE_LOG,
    )
    actor: Any = ray.remote(NullReplica).options(max_concurrency=1000).remote()
    of_serve, of_actor = handle.pid.remote().result(), ray.get(actor.pid.remote())
    address = ray.get(actor.address.remote())

    async def over_handle() -> object:
        return await handle.classify.remote(image)

    async def over_actor() -> object:
        return await actor.classify.remote(image)

    windows = {pid: Window(pid, options.seconds) for pid in (of_serve, of_actor)}
    ways: list[tuple[str, int, int, Callable[[int], Any]]] = [
        ("handle", of_serve, 1, lambda callers: _in_tasks(callers, over_handle)),
        ("actor", of_actor, 1, lambda callers: _in_tasks(callers, over_actor)),
        ("thrift", of_actor, 1, lambda n: _in_threads(n, _over_thrift(address, image, 1))),
        (
            f"thrift x{_GATHERED}",
            of_actor,
            _GATHERED,
            # As many images are on their way as with the others.
            lambda n: _in_threads(max(1, n // _GATHERED), _over_thrift(address, image, _GATHERED)),
        ),
        ("thrift gathered", of_actor, 1, lambda n: _in_threads(n, _over_gathering(address, image))),
    ]
    for repeat in range(options.repeats):
        for callers in _CALLERS:
            for way, pid, each, runner in ways if repeat % 2 == 0 else ways[::-1]:
                found = windows[pid].measure(way, callers, each, runner(callers))
                sys.stdout.write(f"{json.dumps(asdict(found))}\n")
                sys.stdout.flush()
    serve.delete("default")
    ray.shutdown()


if __name__ == "__main__":
    main()
