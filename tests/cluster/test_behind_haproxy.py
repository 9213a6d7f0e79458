"""Front ends of a real Ray behind a real HAProxy: parts end under load, and the port stays."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from service.client import Client, ClientError, ConnectionFailedError
from tests.cluster.needs import needs_ray
from tests.cluster_runs.balanced_cluster import BalancedCluster
from tests.cluster_runs.check_values import random_image
from tests.cluster_runs.load import ClusterLoad
from tests.cluster_runs.paced import paced_server
from tests.cluster_runs.ray_nodes import RayNodes
from tests.deploy.haproxy import DOWN, UP
from tests.deploy.needs import needs_haproxy
from tests.ports import free_port
from tests.robustness.checking_clients import LOST, RIGHT
from tests.robustness.colour_model import LABELS
from tests.waiting import wait_until

pytestmark = [needs_ray, needs_haproxy]

REPLICAS = 2
TIMEOUT_S = 120.0
# Raw connections, which tell what becomes of each; and clients as they are given to users.
CLIENTS, OWN_CLIENTS = 6, 2
ANSWERS = 60
_TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def cluster() -> Iterator[BalancedCluster]:
    # A short path: sockets of Ray's lie there.
    with TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        arguments, port = paced_server(folder, 5), free_port()
        with RayNodes(folder, port + 6, cpus=1, head_cpus=REPLICAS) as nodes:
            nodes.start_head()
            with BalancedCluster(
                nodes, arguments, REPLICAS, port, 2, folder, is_quick=True
            ) as cluster:
                cluster.start()
                yield cluster
                assert cluster.stop() == [0, 0]


class OwnClients:
    """Clients of this project's, for the length of the context, each image with its own answer."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stopped = threading.Event()
        self.answers = 0
        self.wrong: list[str] = []
        self.failures: list[ClientError] = []
        self._threads = [
            threading.Thread(target=self._run, args=(number,)) for number in range(OWN_CLIENTS)
        ]

    def _run(self, number: int) -> None:
        rng = random.Random(number)  # noqa: S311 (guards no secret)
        with Client(port=self._port) as client:
            while not self._stopped.is_set():
                image = random_image(rng)
                try:
                    found = client.classify(image.data, top_k=len(LABELS))
                except ClientError as error:
                    self.failures.append(error)
                    continue
                scores = {one.label: one.score for one in found.top_k}
                if scores != pytest.approx(image.scores, abs=_TOLERANCE):
                    self.wrong.append(f"{scores} instead of {image.scores}")
                self.answers += 1

    def __enter__(self) -> OwnClients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)


@contextmanager
def loaded(cluster: BalancedCluster) -> Iterator[tuple[ClusterLoad, OwnClients]]:
    """Both kinds of clients, all connected; each call is answered rightly in the end."""
    load, own = ClusterLoad([cluster.port], CLIENTS, seed=1), OwnClients(cluster.port)
    with load, own:
        wait_until(lambda: sum(map(cluster.connections_at, cluster.ports)) == CLIENTS + OWN_CLIENTS)
        wait_for_answers(load, own)
        yield load, own
        wait_for_answers(load, own)
    assert load.mistakes == own.wrong == []
    # Nothing else: HAProxy's port takes every connection, and no call has an error for an answer.
    assert set(load.counts) <= {RIGHT, LOST}
    last = {attempt.call: attempt.outcome for attempt in load.attempts}
    assert set(last.values()) == {RIGHT}
    assert cluster.balancer.is_alive()


def wait_for_answers(load: ClusterLoad, own: OwnClients) -> None:
    """Wait until both kinds of clients have got so many more."""
    wanted, own_wanted = load.counts[RIGHT] + ANSWERS, own.answers + ANSWERS // 4
    wait_until(lambda: load.counts[RIGHT] >= wanted and own.answers >= own_wanted)


def start_again(cluster: BalancedCluster, port: int) -> None:
    cluster.start_front_end(port)
    cluster.front_ends[port].wait_ready()
    cluster.seen(port, UP)


def test_a_killed_front_end_costs_what_was_under_way_there(cluster: BalancedCluster) -> None:
    port = cluster.ports[0]
    with loaded(cluster) as (load, own):
        connections = cluster.connections_at(port)
        cluster.front_ends[port].kill()
        cluster.seen(port, DOWN)
        wait_for_answers(load, own)
        start_again(cluster, port)
    # All that is lost is on a connection that it had, which carries a call at a time.
    assert 0 < load.counts[LOST] <= connections
    assert len(own.failures) <= OWN_CLIENTS
    assert all(isinstance(error, ConnectionFailedError) for error in own.failures)


def test_a_front_end_that_drains_costs_no_call(cluster: BalancedCluster) -> None:
    port = cluster.ports[1]
    with loaded(cluster) as (load, own):
        connections = cluster.connections_at(port)
        # Its exit code says whether it has cut off a call that it had accepted.
        assert cluster.front_ends[port].terminate() == 0
        assert "code: 503" in cluster.seen(port, DOWN)
        wait_for_answers(load, own)
        start_again(cluster, port)
    assert own.failures == []
    # Raw connections end between two calls, each once.
    assert load.counts[LOST] <= connections


def test_a_killed_replica_costs_no_call(cluster: BalancedCluster) -> None:
    with loaded(cluster) as (load, own):
        victim = cluster.replica_processes()[0]
        victim.kill()
        wait_for_answers(load, own)
        assert cluster.wait_for(REPLICAS, TIMEOUT_S)
        assert victim not in cluster.replica_processes()
    assert own.failures == []
    assert set(load.counts) == {RIGHT}
