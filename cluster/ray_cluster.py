"""A server's replicas in a Ray cluster: Serve places them, keeps them going and ends them."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from typing import Any

import ray
from ray import serve

from cluster import applications
from cluster.directory import Directory
from cluster.ray_names import NAMESPACE
from cluster.registry_link import RegistryLink
from cluster.release import Plan, Release, Rollout
from cluster.replicas import Replicas
from engine.cpu.cores import available_cores
from service.errors import ConfigurationError
from service.options.cluster_settings import LOCAL, ClusterSettings

_log = logging.getLogger(__name__)

_REGISTRY_S = 60.0
_CONNECT_S = 5.0
# That of this host's own node.
_AUTO = "auto"


class RayCluster:
    """Replicas of one release, as `cluster.front_end.Cluster` wants them.

    The first front end has them placed, and the last one that ends in order has them ended.

    Args:
        settings: where, and how many.
        release: what they run.
    """

    def __init__(self, settings: ClusterSettings, release: Release) -> None:
        self._settings = settings
        self._release = release
        self._registry = RegistryLink()
        self._directory: Directory | None = None
        self._is_connected = False

    def start(self, replicas: Replicas) -> int:
        """Connect, and have the replicas placed unless they are there."""
        connect(self._settings.cluster or "", log_to_driver=True, **self._of_local())
        self._is_connected = True
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        serve.start(proxy_location="Disabled", logging_config=applications.SERVE_LOG)
        self._registry.call("forget_failure", timeout_s=_REGISTRY_S)
        self._directory = Directory(self._registry, self._reconnect)
        self._directory.start(replicas)
        if self._joins():
            return 1
        # It returns once they are there, which the front end sees by itself.
        threading.Thread(target=self._deploy, args=(replicas,), name="deploy", daemon=True).start()
        return self._settings.fewest

    def trouble(self) -> str:
        """What Serve says of the deployment that does not come up."""
        return " ".join(filter(None, map(applications.trouble, applications.running())))

    def in_words(self) -> str:
        """How many there are to be."""
        return f"{self._settings.in_words} on the Ray cluster {self._settings.cluster}"

    def close(self) -> None:
        """End the replicas, unless other front ends have them, and leave the cluster."""
        if not self._is_connected:
            return
        self._is_connected = False
        if not ray.is_initialized():
            _log.warning("Ray cannot be reached; the replicas go on, if they are there")
            return
        others = 0 if self._directory is None else self._directory.stop()
        if others is None and not self._settings.is_local:
            _log.warning(
                "the replicas go on, since other front ends may have them; the next front end that "
                "is stopped ends them"
            )
        elif others:
            _log.info("the replicas go on for %d other front ends", others)
        else:
            _log.info("ending the replicas")
            for release in applications.running():
                applications.end(release)
            self._registry.end()
        ray.shutdown()

    def _of_local(self) -> dict[str, Any]:
        if not self._settings.is_local:
            return {}
        return {
            "include_dashboard": False,
            # Those that replicas reserve are there, whatever the machine has.
            "num_cpus": max(available_cores(), round(self._cpus * self._settings.most + 0.5)),
        }

    @property
    def _cpus(self) -> float:
        """How many each replica reserves."""
        if self._settings.cpus_per_replica is not None:
            return self._settings.cpus_per_replica
        if not self._settings.is_local:
            return 1.0
        share = available_cores() / self._settings.most
        return max(1.0, share // 1) if share >= 1 else share

    @property
    def _host(self) -> str:
        """Where replicas listen: those of a local cluster are for this machine only."""
        return "127.0.0.1" if self._settings.is_local else ""

    def _reconnect(self) -> None:
        if self._settings.is_local:
            # It ends with this connection, and so do the replicas.
            return
        _log.warning("connecting to Ray anew")
        ray.shutdown()
        connect(self._settings.cluster or "", log_to_driver=True)

    def _joins(self) -> bool:
        """Whether replicas are there, which this front end serves as they are."""
        name, there = self._release.name, applications.running()
        if not there or (there == [name] and applications.state(name).failure):
            return False
        if name in there:
            _log.info("joining the replicas that are there, of release %s", name)
        else:
            _log.warning(
                "the replicas run release %s, and not the options given here (release %s); "
                "`thriftpipe cluster update` changes what they run",
                " and ".join(there),
                name,
            )
        return True

    def _deploy(self, replicas: Replicas) -> None:
        plan = Plan(self._release, self._settings, self._cpus, self._host)
        try:
            applications.deploy(plan, Rollout(is_announced=True), wait=True)
        except (RuntimeError, ValueError, ray.exceptions.RayError) as error:
            replicas.failed(" ".join(str(error).split()))


def connect(address: str, *, log_to_driver: bool, **others: Any) -> None:
    """Connect this process to a Ray cluster.

    Args:
        address: of its head, or `local` for one of its own.
        log_to_driver: whether lines of the replicas' logs come here.
        **others: further arguments of `ray.init`.

    Raises:
        ConfigurationError: the address is none, or that of a cluster of another kind.
        ConnectionError: it cannot be reached.
    """
    _require_listener(address)
    # Ray installs a handler of its own, which would end this process at once.
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address,
            namespace=NAMESPACE,
            configure_logging=False,
            log_to_driver=log_to_driver,
            **others,
        )
    except (ValueError, RuntimeError, ray.exceptions.AuthenticationError) as error:
        told = " ".join(str(error).split())
        raise ConfigurationError(f"--cluster {address}: Ray does not take it: {told}") from error
    except (ConnectionError, ray.exceptions.RayError) as error:
        raise _unreachable(address, error) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def host_and_port(address: str) -> tuple[str, int] | None:
    """Where a cluster's head listens; None where Ray finds it by itself.

    Raises:
        ConfigurationError: it is no such address.
    """
    if address in (LOCAL, _AUTO) or "://" in address:
        return None
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise ConfigurationError(
            f"--cluster takes the address of a Ray cluster, such as 10.0.0.1:6379, auto for that "
            f"of this host's node, or local for one that ends with the server, got {address!r}"
        )
    return host.strip("[]"), int(port)


def _require_listener(address: str) -> None:
    """Tell at once what Ray would try for minutes: that nothing is there."""
    place = host_and_port(address)
    if place is None:
        return
    try:
        socket.create_connection(place, _CONNECT_S).close()
    except OSError as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str, error: Exception) -> ConnectionError:
    return ConnectionError(
        f"--cluster {address}: Ray cannot be reached there: {' '.join(str(error).split())}; "
        "`ray status --address ADDRESS` shows whether it runs; local starts one here"
    )
