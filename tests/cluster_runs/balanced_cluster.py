"""Several front ends of a cluster behind HAProxy, which is configured as `deploy/` has it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.cluster_runs.ray_nodes import RayNodes
from tests.cluster_runs.served_cluster import HOST, ServedCluster
from tests.deploy.haproxy import (
    QUICK_DRAIN_DELAY_S,
    Balancer,
    Server,
    on_loopback,
    with_quick_checks,
)
from tests.robustness.checking_clients import wait_until

# As deploy/haproxy.cfg asks for.
_DRAIN_DELAY_S = 5.0


class BalancedCluster(ServedCluster):
    """Nodes with replicas, front ends, and HAProxy before these, while the context lasts.

    Args:
        nodes: the Ray cluster, which runs.
        arguments: of the service, without how many replicas there are.
        replicas: how many.
        port: where clients find HAProxy; its own page and the front ends have the next ones.
        front_ends: how many.
        folder: for logs and the configuration.
        is_quick: whether HAProxy asks more often than is shipped, so that tests wait for less.
    """

    def __init__(
        self,
        nodes: RayNodes,
        arguments: Sequence[str],
        replicas: int,
        port: int,
        front_ends: int,
        folder: Path,
        *,
        is_quick: bool = False,
    ) -> None:
        self.port = port
        self._own_port = port + 1
        ports = [port + 2 + 2 * number for number in range(front_ends)]
        super().__init__(nodes, arguments, replicas, ports, folder)
        self._drain_delay_s = QUICK_DRAIN_DELAY_S if is_quick else _DRAIN_DELAY_S
        servers = {_name(one): Server(HOST, one, one + 1) for one in ports}
        text = on_loopback(port, self._own_port, servers)
        self._configuration = folder / "haproxy.cfg"
        self._configuration.write_text(with_quick_checks(text) if is_quick else text)
        self._balancer: Balancer | None = None

    @property
    def balancer(self) -> Balancer:
        """HAProxy, once the cluster has started."""
        assert self._balancer is not None
        return self._balancer

    def start(self) -> None:
        """Start the front ends, then HAProxy before them."""
        super().start()
        self._balancer = Balancer(self._configuration, (HOST, self._own_port))

    def own_arguments(self, port: int) -> Sequence[str]:
        """What HAProxy needs of a front end."""
        metrics = ("--metrics-port", str(port + 1))
        return *metrics, "--drain-delay-s", f"{self._drain_delay_s:g}"

    def connections_at(self, port: int) -> int:
        """How many connections of clients are at that front end."""
        return self.balancer.connections(_name(port))

    def seen(self, port: int, state: str) -> str:
        """What HAProxy says, once it has found that front end UP or DOWN."""
        return self.balancer.seen(_name(port), state)

    def state_of(self, port: int) -> str:
        """What HAProxy thinks of that front end."""
        return self.balancer.state(_name(port))

    def wait_for_state(self, port: int, state: str, timeout_s: float) -> bool:
        """Whether HAProxy thinks so of a front end within that time."""
        return wait_until(lambda: self.state_of(port) == state, timeout_s)

    def __exit__(self, *raised: object) -> None:
        if self._balancer is not None:
            self._balancer.__exit__(*raised)
        super().__exit__(*raised)


def _name(port: int) -> str:
    return f"front-end-{port}"
