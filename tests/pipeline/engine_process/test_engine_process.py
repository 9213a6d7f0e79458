"""Workers that share one engine process: real servers, real images, real deaths."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import psutil
import pytest

from idl import inference
from pipeline.engine_process.remote_node import RemoteNode
from pipeline.errors import PipelineConfigError
from tests.serving import TIMEOUT_S, connect, service
from tests.waiting import wait_until

HANG_TIMEOUT_S = "3"
SHARED = ("--handler", "pipeline", "--workers", "2", "--set", "shared_engine=always")


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[int, psutil.Process]]:
    """Port and process of a server of two workers and an engine process."""
    options = ["--hang-timeout-s", HANG_TIMEOUT_S, "--max-queue", "64"]
    # On a busy machine a new engine process takes longer than a call may by default.
    options += ["--default-timeout-ms", str(TIMEOUT_S * 1000)]
    with service(*SHARED, "--model", "efficientnet_lite0", *options) as (port, process):
        server = psutil.Process(process.pid)
        yield port, server
        (engine,) = engine_processes(server)
    assert not engine.is_running(), "it ends with the server"


def engine_processes(server: psutil.Process) -> list[psutil.Process]:
    def is_one(process: psutil.Process) -> bool:
        with suppress(psutil.NoSuchProcess):
            return (
                process.status() != psutil.STATUS_ZOMBIE
                and "pipeline.engine_server" in process.cmdline()
            )
        return False

    return [child for child in server.children(recursive=True) if is_one(child)]


def classify(port: int, images: list[bytes], **options: Any) -> list[Any]:
    client = connect(port)
    try:
        requests = [inference.InferenceParams(str(i), data) for i, data in enumerate(images)]
        return list(client.infer_images(requests, inference.InferOptions(**options)))
    finally:
        client.close()


class Load:
    """Callers that call one after the other, over connections of their own.

    Attributes:
        answers: of all images so far.
    """

    def __init__(self, port: int, images: list[bytes], callers: int = 4) -> None:
        self.answers: list[Any] = []
        self._changed = threading.Condition()
        self._images = images
        self._is_over = threading.Event()
        self._pool = ThreadPoolExecutor(callers)
        self._callers = [self._pool.submit(self._call, port) for _ in range(callers)]

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        for caller in self._callers:
            caller.result(TIMEOUT_S)
        self._pool.shutdown()

    def wait_for(self, answers: int) -> None:
        """Wait for so many more."""
        with self._changed:
            wanted = len(self.answers) + answers
            assert self._changed.wait_for(lambda: len(self.answers) >= wanted, TIMEOUT_S)

    def _call(self, port: int) -> None:
        client = connect(port)
        requests = [inference.InferenceParams(str(i), data) for i, data in enumerate(self._images)]
        while not self._is_over.is_set():
            answers = client.infer_images(requests, None)
            with self._changed:
                self.answers += answers
                self._changed.notify_all()
        client.close()


def test_workers_share_one(server: tuple[int, psutil.Process]) -> None:
    port, process = server
    clients = [connect(port) for _ in range(2)]
    infos = [client.server_info() for client in clients]
    for client in clients:
        client.close()
    assert {info.worker for info in infos} == {0, 1}
    assert infos[0].settings["engine_process"] == "shared by the workers"
    assert infos[0].model_sha256 == infos[1].model_sha256
    assert len(engine_processes(process)) == 1


def test_its_nodes_are_in_the_stats_once(
    server: tuple[int, psutil.Process], photographs: list[bytes]
) -> None:
    port, process = server
    clients = [connect(port) for _ in range(2)]

    def node_items() -> tuple[int, int]:
        nodes = clients[0].stats().nodes
        return nodes["cpu_decoder"].items, nodes["efficientnet_lite0"].items

    before = node_items()
    for client in clients:
        client.infer_batch(inference.InferenceParams("u", photographs[0]))
    # Both workers have the numbers of the engine process, as of its last heartbeat.
    wait_until(lambda: min(n - m for n, m in zip(node_items(), before, strict=True)) >= 2)
    stats = clients[1].stats()
    (engine,) = engine_processes(process)
    assert (stats.engine_process.pid, stats.engine_process.alive) == (engine.pid, True)
    assert stats.engine_process.restarts == 0
    node = stats.nodes["efficientnet_lite0"]
    assert node.items == sum(size * n for size, n in node.batches_by_size.items())
    assert node.working_instances == node.instances
    assert stats.stages["efficientnet_lite0.forward"].counts
    for client in clients:
        client.close()


def test_labels_are_right_and_bad_images_fail_alone(
    server: tuple[int, psutil.Process], labelled_photographs: list[tuple[bytes, tuple[str, ...]]]
) -> None:
    images = [data for data, _ in labelled_photographs]
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(classify, server[0], [*images, b"no image"]) for _ in range(16)]
        for call in calls:
            *results, bad = call.result()
            assert bad.error.code == inference.ErrorCode.INVALID_IMAGE
            for result, (_, words) in zip(results, labelled_photographs, strict=True):
                assert any(word in result.label.lower() for word in words), result


def test_times_of_both_processes_arrive(
    server: tuple[int, psutil.Process], photographs: list[bytes]
) -> None:
    (result,) = classify(server[0], photographs[:1], with_stage_times=True)
    assert {
        *("cpu_decoder.queue", "cpu_decoder.forward"),
        *("efficientnet_lite0.queue", "efficientnet_lite0.forward"),
    } <= result.stage_times_ms.keys()


def test_a_deadline_holds_in_the_engine_process(
    server: tuple[int, psutil.Process], photographs: list[bytes]
) -> None:
    results = classify(server[0], photographs * 5, timeout_ms=20)
    late = [r for r in results if r.error is not None]
    assert late
    assert {r.error.code for r in late} == {inference.ErrorCode.DEADLINE_EXCEEDED}


def test_another_takes_the_place_of_one_that_dies(
    server: tuple[int, psutil.Process], photographs: list[bytes]
) -> None:
    port, process = server
    workers = {child.pid for child in process.children()}
    (first,) = engine_processes(process)
    client = connect(port)
    wait_until(lambda: client.stats().engine_process is not None)

    def is_replaced() -> bool:
        stats = client.stats()
        engine = stats.engine_process
        # What is gone has no instance in service.
        assert engine.alive == bool(stats.nodes["efficientnet_lite0"].working_instances)
        return bool(engine.pid != first.pid)

    with Load(port, photographs[:1]) as load:
        load.wait_for(16)
        first.kill()
        assert psutil.wait_procs([first], TIMEOUT_S)[0]
        wait_until(is_replaced)
        load.wait_for(32)
    engine = client.stats().engine_process
    assert (engine.alive, engine.restarts) == (True, 1)
    client.close()
    # Nothing was lost: what it had, and what came meanwhile, has run in the new one.
    assert [answer.error for answer in load.answers if answer.error is not None] == []
    assert {child.pid for child in process.children()} == workers
    assert [other.pid for other in engine_processes(process)] != [first.pid]


def test_another_takes_the_place_of_one_that_hangs_and_the_limits_hold(
    server: tuple[int, psutil.Process], photographs: list[bytes]
) -> None:
    port, process = server
    client = connect(port)
    workers = {child.pid for child in process.children()}
    (first,) = engine_processes(process)
    first.suspend()
    # Twelve times 32 images: what fits waits for the new process, the others are refused at once.
    call = photographs[:1] * 32
    with ThreadPoolExecutor(12) as callers:
        calls = [
            callers.submit(classify, port, call, timeout_ms=TIMEOUT_S * 1000) for _ in range(12)
        ]
        wait_until(lambda: "is being restarted" in client.health().reason)
        failures = [one.exception(TIMEOUT_S) for one in calls]
    refused = [failure for failure in failures if failure is not None]
    assert 0 < len(refused) < 12
    assert all(isinstance(failure, inference.Overloaded) for failure in refused)
    for one, failure in zip(calls, failures, strict=True):
        if failure is None:
            assert one.result()[0].error is None
    wait_until(lambda: client.health().ready)
    client.close()
    assert not first.is_running()
    assert {child.pid for child in process.children()} == workers
    assert len(engine_processes(process)) == 1


def test_one_that_is_stopped_while_it_loads_is_replaced(
    server: tuple[int, psutil.Process], photographs: list[bytes]
) -> None:
    port, process = server
    (first,) = engine_processes(process)
    with Load(port, photographs[:1]) as load:
        first.kill()
        assert psutil.wait_procs([first], TIMEOUT_S)[0]
        wait_until(lambda: bool(engine_processes(process)))
        (second,) = engine_processes(process)
        second.suspend()
        load.wait_for(16)
    assert [answer.error for answer in load.answers if answer.error is not None] == []
    assert not second.is_running()
    (third,) = engine_processes(process)
    assert third.pid not in (first.pid, second.pid)


def test_it_outlives_the_worker_that_started_it(
    server: tuple[int, psutil.Process], photographs: list[bytes]
) -> None:
    port, process = server
    (engine,) = engine_processes(process)
    starter = engine.parent()
    assert starter is not None
    other = next(child for child in process.children() if child.pid != starter.pid)
    # Until the server has noticed that earlier tests' clients have gone, two may get one worker.
    clients = [connect(port) for _ in range(8)]
    client = next(one for one in clients if one.server_info().pid == other.pid)
    starter.kill()
    for number in range(20):
        request = inference.InferenceParams(str(number), photographs[0])
        assert client.infer_batch(request).label
    assert engine.is_running()
    for one in clients:
        one.close()


def test_one_that_ends_while_it_starts_is_one_line() -> None:
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    theirs.close()
    with subprocess.Popen(["true"]) as ended:
        node = RemoteNode("m", lambda: (ours, ended.pid))
        with pytest.raises(PipelineConfigError, match="the engine process ended while it started"):
            node.start()


def test_a_worker_without_it_is_not_ready() -> None:
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    assert RemoteNode("m", lambda: (ours, os.getpid())).why_not_ready() == (
        "node 'm': the engine process is being restarted"
    )
    for end in (ours, theirs):
        end.close()


def test_what_cannot_run_there_ends_the_start_with_one_line() -> None:
    command = [sys.executable, "-m", "service", "--port", "0", *SHARED]
    command += ["--model", "efficientnet_lite0", "--set", "resnet50.max=4x3x300x300"]
    command += ["--calibrate", "off"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert ended.returncode == 2
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "max = 4x3x300x300, but one row of the model's input is 3x224x224" in errors[0]
    assert "Traceback" not in ended.stderr
