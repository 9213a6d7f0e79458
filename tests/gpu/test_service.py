"""A real server on the GPU, asked over real sockets: both handlers, both ways of decoding."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from engine.contexts.cuda_device import all_have_jpeg_engines
from idl import inference
from tests.serving import connect, service

MODEL = ("--model", "efficientnet_lite0")
ARGUMENTS = {
    "baseline": ("--handler", "baseline"),
    "pipeline": ("--handler", "pipeline", "--decode", "cpu"),
    "pipeline-gpu": ("--handler", "pipeline", "--decode", "gpu"),
    "pipeline-gpu-2-workers": ("--handler", "pipeline", "--decode", "gpu", "--workers", "2"),
}


def classify(port: int, images: list[bytes]) -> list[Any]:
    client = connect(port)
    try:
        requests = [inference.InferenceParams(str(i), data) for i, data in enumerate(images)]
        return list(client.infer_images(requests, None))
    finally:
        client.close()


@pytest.mark.parametrize("name", ARGUMENTS)
def test_labels_are_right_under_load(
    name: str,
    labelled_photographs: list[tuple[bytes, tuple[str, ...]]],
    odd_images: dict[str, bytes],
) -> None:
    images = [data for data, _ in labelled_photographs]
    with service(*ARGUMENTS[name], *MODEL) as (port, _), ThreadPoolExecutor(8) as pool:
        client = connect(port)
        info = client.server_info()
        client.close()
        assert info.precision == "fp16"
        assert info.engine in ("torch", "tensorrt")
        calls = [pool.submit(classify, port, [*images, b"none"]) for _ in range(24)]
        for call in calls:
            *results, bad = call.result()
            assert bad.error.code == inference.ErrorCode.INVALID_IMAGE
            for result, (_, words) in zip(results, labelled_photographs, strict=True):
                assert any(word in result.label.lower() for word in words), result
        for result in classify(port, list(odd_images.values())):
            assert result.error is None
        client = connect(port)
        stats = client.stats()
        client.close()
        assert stats.gpus
        assert all(0 < gpu.memory_used_bytes <= gpu.memory_total_bytes for gpu in stats.gpus)
        assert all(node.working_instances == node.instances for node in stats.nodes.values())


def test_a_jpeg_engine_decodes_by_default() -> None:
    """And a server whose engine and decoder are on the GPU says so."""
    place = "GPU" if all_have_jpeg_engines() else "CPU"
    with service("--handler", "pipeline", *MODEL) as (port, _):
        client = connect(port)
        assert client.server_info().settings["decode"].startswith(f"{place} (auto: ")
        client.close()


def test_asking_for_the_jpeg_engine_takes_no_memory_of_the_gpu() -> None:
    """Workers ask, and leave all else on the GPU to the engine process."""
    code = (
        "import torch; from engine.contexts.cuda_device import all_have_jpeg_engines; "
        "all_have_jpeg_engines(); print(torch._C._cuda_hasPrimaryContext(0))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_decoding_on_the_gpu_changes_no_label(shipped_images: list[bytes]) -> None:
    answers = []
    for name in ("pipeline", "pipeline-gpu"):
        with service(*ARGUMENTS[name], *MODEL) as (port, _):
            answers.append([(r.label, r.score) for r in classify(port, shipped_images)])
    for (cpu_label, cpu_score), (gpu_label, gpu_score) in zip(*answers, strict=True):
        assert gpu_label == cpu_label
        assert abs(gpu_score - cpu_score) < 0.02
