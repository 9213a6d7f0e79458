"""A real server whose caches lie on a full disk."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from idl import inference
from tests.full_disk import full_disk
from tests.serving import OPTIONS, ServerProcess, connect, service


def test_it_serves_without_the_engine_cache(tmp_path: Path, photographs: list[bytes]) -> None:
    with full_disk(tmp_path / "disk") as disk:
        cache = f"resnet50.model::cache={disk / 'engine.cache.engine_cache'}"
        arguments = ("--engine", "onnxruntime", "--model", "efficientnet_lite0", "--set", cache)
        with service("--handler", "pipeline", *arguments) as (port, _):
            client = connect(port)
            assert client.infer_batch(inference.InferenceParams("1", photographs[0])).score > 0
            client.close()
        assert list(disk.iterdir()) == []


# In a name space of its own `/dev/shm` is small and full.
FULL_SHM = """
import os, sys
fill = "mount -t tmpfs -o size=4k tmpfs /dev/shm && head -c 4096 /dev/zero > /dev/shm/full"
command = ["unshare", "--mount", "sh", "-c", fill + ' && exec "$@"', "sh", sys.executable]
os.execvp(command[0], [*command, *sys.argv[1:]])
"""


def may_unshare() -> bool:
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]  # noqa: S108
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.skipif(not may_unshare(), reason="mounting a small file system needs root")
def test_a_full_dev_shm_is_not_missed(photographs: list[bytes]) -> None:
    """Workers and their engine process share memory that lies in no folder."""
    arguments = ("--handler", "pipeline", "--calibrate", "off", "--engine", "onnxruntime")
    options = ("--model", "efficientnet_lite0", "--workers", "2", "--set", "shared_engine=always")
    server = ServerProcess(["-c", FULL_SHM, "-m", "service", *OPTIONS, *arguments, *options])
    try:
        client = connect(server.port())
        assert Path(f"/proc/{server.process.pid}/root/dev/shm/full").stat().st_size == 4096
        assert client.infer_batch(inference.InferenceParams("1", photographs[0])).score > 0
        client.close()
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
    finally:
        server.close()
