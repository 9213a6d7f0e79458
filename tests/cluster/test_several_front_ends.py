"""Front ends that share the replicas of one Ray cluster."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psutil
import pytest

from service.client import Client
from service.handlers.warm_up import sample_jpeg
from tests.cluster.needs import needs_ray
from tests.serving import TIMEOUT_S, ServerProcess

pytestmark = needs_ray


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster with one node, which no front end has started."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


@contextmanager
def _front_end(address: str, *arguments: str) -> Iterator[tuple[int, ServerProcess]]:
    """Its port, and its process, whose log is read to the end."""
    command = ["-m", "service", "--handler", "null", "--port", "0", "--cluster", address]
    with closing(ServerProcess([*command, *arguments])) as process:
        port = process.port()
        reader = threading.Thread(target=process.wait_for_end)
        reader.start()
        yield port, process
        process.process.send_signal(signal.SIGTERM)
        reader.join(TIMEOUT_S)
        assert process.process.returncode == 0, process.log


def test_the_last_front_end_ends_the_replicas_and_no_other(address: str) -> None:
    with _front_end(address, "--replicas", "1") as (second_port, second):
        # More than there are: it joins those that run, as they are.
        with _front_end(address, "--replicas", "3") as (first_port, first):
            with Client(port=first_port) as client:
                pid = client.server_info().pid
                assert client.classify(sample_jpeg()).label == "tench"
            assert "joining the replicas that are there" in first.log
        with Client(port=second_port) as client:
            assert client.server_info().pid == pid
            assert client.classify(sample_jpeg()).label == "tench"
        assert psutil.pid_exists(pid)
    assert "the replicas go on for 1 other front ends" in first.log
    assert "ending the replicas" in second.log
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=TIMEOUT_S)
    assert not psutil.pid_exists(pid)
