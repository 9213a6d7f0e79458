"""What large images leave in the memory that workers and an engine process share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from idl import inference
from service.handlers.warm_up import sample_jpeg
from tests.process_memory import proportional_bytes
from tests.robustness.colour_model import SIDE, write_colour_model
from tests.serving import connect, service

WORKERS = 2
IMAGE_BYTES = 2_000_000
IMAGES_PER_CALL = 6
CALLS = 8
LIMIT_BYTES = 64_000_000


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A graph of one node, which decodes and infers in the engine process."""
    config = tmp_path / "one_node.toml"
    config.write_text(
        f"""
        shared_engine = "always"
        [colours]
        backend = "S[DecodeMat,ResizeMat,cvtColorMat,Mat2Tensor,TensorrtTensor]"
        model = "{write_colour_model(tmp_path).model}"
        resize_h = {SIDE}
        resize_w = {SIDE}
        max = "1x3x{SIDE}x{SIDE}"
        """,
        encoding="utf-8",
    )
    return config


def test_slots_do_not_keep_what_has_passed_through_them(pipeline: Path) -> None:
    """Many small images are at work at once, and then large ones, in whichever slots."""
    image = sample_jpeg() + bytes(IMAGE_BYTES)
    arguments = ("--handler", "pipeline", "--engine", "onnxruntime", "--config", str(pipeline))
    limits = ("--workers", str(WORKERS), "--max-buffered-bytes", str(LIMIT_BYTES))
    with service(*arguments, *limits) as (port, process), ThreadPoolExecutor(WORKERS) as pool:
        clients = [connect(port) for _ in range(WORKERS)]

        def classify(client: object, images: list[bytes]) -> None:
            params = [inference.InferenceParams("u", data) for data in images]
            for result in client.infer_images(params):  # type: ignore[attr-defined]
                assert result.error is None

        list(pool.map(classify, clients, [[sample_jpeg()] * 100] * WORKERS))
        before_bytes = proportional_bytes(process.pid)
        for _ in range(CALLS):
            list(pool.map(classify, clients, [[image] * IMAGES_PER_CALL] * WORKERS))
        grown_bytes = proportional_bytes(process.pid) - before_bytes
        for client in clients:
            client.close()
    assert grown_bytes < LIMIT_BYTES * 5 // 4
