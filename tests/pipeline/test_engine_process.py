"""Workers that share one engine process: real servers, real images, real deaths."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import psutil
import pytest

from idl import inference
from pipeline.config import parse_config
from pipeline.engine_process.remote_node import RemoteNode
from pipeline.engine_process.split import back_part, entry_of_engine_process, front_part
from pipeline.errors import PipelineConfigError
from tests.serving import TIMEOUT_S, connect, service

SHARED = ("--handler", "pipeline", "--workers", "2", "--set", "shared_engine=always")


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[int, psutil.Process]]:
    """Port and process of a server of two workers and an engine process."""
    with service(*SHARED, "--model", "efficientnet_lite0") as (port, process):
        yield port, psutil.Process(process.pid)


def engine_processes(server: psutil.Process) -> list[psutil.Process]:
    return [
        process
        for process in server.children(recursive=True)
        if "pipeline.engine_process.host" in process.cmdline()
    ]


def classify(port: int, images: list[bytes], **options: Any) -> list[Any]:
    client = connect(port)
    try:
        requests = [inference.InferenceParams(str(i), data) for i, data in enumerate(images)]
        return list(client.infer_images(requests, inference.InferOptions(**options)))
    finally:
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
        *("resnet50.queue", "resnet50.forward"),
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
    first.kill()
    end_s = time.monotonic() + TIMEOUT_S
    answers = []
    # Until both workers have found the new one; meanwhile clients are told, and not kept waiting.
    while answers[-4:] != [None] * 4:
        assert time.monotonic() < end_s
        error = classify(port, photographs[:1])[0].error
        assert error is None or error.code == inference.ErrorCode.INTERNAL
        answers.append(error)
    assert {child.pid for child in process.children()} == workers
    assert [other.pid for other in engine_processes(process)] != [first.pid]


def test_it_outlives_the_worker_that_started_it(
    server: tuple[int, psutil.Process], photographs: list[bytes]
) -> None:
    port, process = server
    (engine,) = engine_processes(process)
    starter = engine.parent()
    assert starter is not None
    other = next(child for child in process.children() if child.pid != starter.pid)
    clients = [connect(port) for _ in range(2)]
    client = next(one for one in clients if one.server_info().pid == other.pid)
    starter.kill()
    for number in range(20):
        request = inference.InferenceParams(str(number), photographs[0])
        assert client.infer_batch(request).label
    assert engine.is_running()
    for one in clients:
        one.close()


def test_none_is_left_when_the_server_stops(photographs: list[bytes]) -> None:
    with service(*SHARED, "--model", "efficientnet_lite0") as (port, process):
        classify(port, photographs[:1])
        (engine,) = engine_processes(psutil.Process(process.pid))
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0
        assert not engine.is_running()


def test_one_that_ends_while_it_starts_is_one_line() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with pytest.raises(PipelineConfigError, match="the engine process ended while it started"):
        RemoteNode("m", lambda: ours).start()


def test_a_worker_without_it_is_not_ready() -> None:
    ours, theirs = socket.socketpair()
    assert RemoteNode("m", lambda: ours).why_not_ready() == (
        "node 'm': the engine process is being restarted"
    )
    for end in (ours, theirs):
        end.close()


def test_what_cannot_run_there_ends_the_start_with_one_line() -> None:
    command = [sys.executable, "-m", "service", "--port", "0", *SHARED]
    command += ["--model", "efficientnet_lite0", "--set", "resnet50.max=4x3x100x100"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert ended.returncode == 2
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "max = 4x3x100x100, but one row of the model's input is 3x224x224" in errors[0]
    assert "Traceback" not in ended.stderr


class TestSplit:
    """Which nodes go there."""

    DOCUMENT: ClassVar[dict[str, Any]] = {
        "decode": {"backend": "DecodeMat", "next": "infer"},
        "infer": {"backend": "TensorrtTensor", "model": "m.onnx"},
    }

    def test_the_engines_node_where_it_is_always(self) -> None:
        config = parse_config({**self.DOCUMENT, "shared_engine": "always"})
        assert entry_of_engine_process(config, "onnxruntime") == "infer"
        front, back = front_part(config, "infer"), back_part(config, "infer")
        assert list(front.nodes) == ["decode", "infer"]
        assert list(back.nodes) == ["infer"]
        assert front.sha256 == back.sha256 == config.sha256

    @pytest.mark.parametrize("wanted", ["auto", "never"])
    def test_none_on_a_cpu_otherwise(self, wanted: str) -> None:
        config = parse_config({**self.DOCUMENT, "shared_engine": wanted})
        assert entry_of_engine_process(config, "onnxruntime") is None

    def test_nodes_on_the_gpu_go_together(self) -> None:
        document = {
            "read": {"backend": "DecodeMat", "next": "resize"},
            "resize": {"backend": "ResizeTensor", "next": "back"},
            "back": {"backend": "CpuTensor"},
        }
        config = parse_config(document)
        assert entry_of_engine_process(config, "onnxruntime") == "resize"
        assert list(back_part(config, "resize").nodes) == ["resize", "back"]

    def test_none_where_the_workers_would_have_to_go_on(self) -> None:
        document = {
            "up": {"backend": "GpuTensor", "next": "down"},
            "down": {"backend": "CpuTensor", "next": "last"},
            "last": {"backend": "Mat2Tensor"},
        }
        assert entry_of_engine_process(parse_config(document), "onnxruntime") is None


def test_the_settings_name_what_is_allowed() -> None:
    with pytest.raises(PipelineConfigError, match='expected "auto", "always" or "never"'):
        parse_config({"node": {"backend": "DecodeMat", "shared_engine": "sometimes"}})
