"""A server's replicas in a Ray cluster: Serve places them, keeps them going and ends them."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
from typing import Any

import ray
from ray import serve
from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
from ray._raylet import GcsClient

from cluster import applications
from cluster.directory import Directory
from cluster.ray_errors import asking, in_words
from cluster.ray_names import NAMESPACE
from cluster.registry_link import RegistryLink
from cluster.release import Plan, Release, Rollout
from cluster.replicas import Replicas
from cluster.rolling_update import UpdateError
from engine.cpu.cores import available_cores
from service.errors import ConfigurationError
from service.logs.log_settings import LogSettings
from service.options.cluster_settings import LOCAL, ClusterSettings
from service.processes.subreaper import wait_for_children

_log = logging.getLogger(__name__)

_REGISTRY_S = 60.0
_CONNECT_S = 5.0
_LOOK_S = 2.0
# That of this host's own node.
_AUTO = "auto"
_TOKEN, _TOKEN_PATH = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


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
        self._is_connecting = False
        self._is_over = threading.Event()
        self._deployer: threading.Thread | None = None

    def start(self, replicas: Replicas) -> int:
        """Connect, and have the replicas placed unless they are there."""
        self._is_connecting = True
        if self._settings.is_local:
            require_token_of_its_own()
        connect(self._settings.cluster or "", log_to_driver=True, **self._of_local())
        self._is_connected, self._is_connecting = True, False
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        with asking("Ray Serve"):
            serve.start(
                proxy_location="Disabled", logging_config=_controller_log(self._release.log)
            )
        self._registry.call("forget_failure", timeout_s=_REGISTRY_S)
        self._directory = Directory(self._registry, self._reconnect)
        self._directory.start(replicas)
        if self._joins():
            return 1
        # That they are there the front end sees by itself.
        self._deployer = threading.Thread(
            target=self._deploy, args=(replicas,), name="deploy", daemon=True
        )
        self._deployer.start()
        return self._settings.fewest

    def trouble(self) -> str:
        """What Serve says of the deployment that does not come up."""
        try:
            return " ".join(filter(None, map(applications.trouble, applications.running())))
        except ConnectionError as error:
            return str(error)

    def in_words(self) -> str:
        """How many there are to be."""
        return f"{self._settings.in_words} on the Ray cluster {self._settings.cluster}"

    def close(self) -> None:
        """End the replicas, unless other front ends have them, and leave the cluster."""
        if self._is_connecting:
            self._is_connecting = False
            if self._settings.is_local:
                # What was started of it by then; its other processes end with these.
                wait_for_children(0.0)
            return
        if not self._is_connected:
            return
        self._is_connected = False
        self._is_over.set()
        if self._deployer is not None:
            # What it asks of Ray after the end would fail.
            self._deployer.join(_CONNECT_S)
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
            try:
                for release in applications.running():
                    applications.end(release)
                self._registry.end()
            except ConnectionError as error:
                _log.warning("the replicas go on, if they are there: %s", error)
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
            applications.deploy(plan, Rollout(is_announced=True))
            # Not at once: what Serve says may be of what was there before.
            while not self._is_over.wait(_LOOK_S):
                state = applications.state(self._release.name)
                if state.failure:
                    replicas.failed(state.failure)
                if state.failure or state.running >= self._settings.fewest:
                    return
        except (ConnectionError, UpdateError) as error:
            replicas.failed(str(error))


def _controller_log(log: LogSettings) -> dict[str, Any]:
    """What Serve's controller logs: of a replica that cannot start a traceback, and no more.

    It would come to this server's stderr, where the replica's own words are.
    """
    is_wanted = log.log_level == "debug"
    return {**applications.SERVE_LOG, "log_level": "WARNING" if is_wanted else "CRITICAL"}


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
    place = host_and_port(address)
    if place is not None:
        _require_listener(address, place)
    raised: list[BaseException] = []
    is_done = threading.Event()

    def init() -> None:
        # That it has no handler for SIGTERM then, and what it does about its token.
        logger = logging.getLogger("ray")
        before = logger.level
        logger.setLevel(logging.ERROR)
        try:
            if place is not None:
                # Ray itself would ask for minutes, and then not say that a token is missing.
                ensure_token_if_auth_enabled(create_token_if_missing=False)
                GcsClient(address=address)
            ray.init(
                address=address,
                namespace=NAMESPACE,
                configure_logging=False,
                log_to_driver=log_to_driver,
                **others,
            )
        except BaseException as error:  # noqa: BLE001 (raised below)
            raised.append(error)
        logger.setLevel(before)
        is_done.set()
        if address == LOCAL:
            # What was started ends with this thread, by the kernel (PR_SET_PDEATHSIG).
            threading.Event().wait()

    # In the main thread Ray would take SIGTERM for itself, and end this process at once.
    threading.Thread(target=init, name="ray-init", daemon=True).start()
    is_done.wait()
    try:
        for error in raised:
            raise error
    except (ValueError, RuntimeError, ray.exceptions.AuthenticationError) as error:
        raise ConfigurationError(
            f"--cluster {address}: Ray does not take it: {in_words(error)}"
        ) from error
    except (ConnectionError, ray.exceptions.RayError) as error:
        raise _unreachable(address, error) from error


def require_token_of_its_own() -> None:
    """Let a Ray that starts here ask for a token that nothing outlives, unless one is given.

    Without this, Ray writes a file for it into the user's home, and every Ray that is started
    there later wants that token, too.
    """
    if _TOKEN_PATH not in os.environ:
        os.environ.setdefault(_TOKEN, secrets.token_hex(32))


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


def _require_listener(address: str, place: tuple[str, int]) -> None:
    """Tell at once what Ray would try for minutes: that nothing is there."""
    try:
        socket.create_connection(place, _CONNECT_S).close()
    except OSError as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str, error: Exception) -> ConnectionError:
    return ConnectionError(
        f"--cluster {address}: Ray cannot be reached there: {in_words(error)}; "
        "`ray status --address ADDRESS` shows whether it runs; local starts one here"
    )
