"""A real server whose caches lie on a full disk."""

from __future__ import annotations

from pathlib import Path

from idl import inference
from tests.full_disk import full_disk
from tests.serving import connect, service


def test_it_serves_without_the_engine_cache(tmp_path: Path, photographs: list[bytes]) -> None:
    with full_disk(tmp_path / "disk") as disk:
        cache = f"resnet50.model::cache={disk / 'engine.cache.engine_cache'}"
        arguments = ("--engine", "onnxruntime", "--model", "efficientnet_lite0", "--set", cache)
        with service("--handler", "pipeline", *arguments) as (port, _):
            client = connect(port)
            assert client.infer_batch(inference.InferenceParams("1", photographs[0])).score > 0
            client.close()
        assert list(disk.iterdir()) == []
