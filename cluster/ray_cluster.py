"""A server's replicas in a Ray cluster: Serve places them, keeps them going and ends them."""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import Any

# Before Ray is imported, which reads them then.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Lines of several replicas that are alike are not the same.
os.environ.setdefault("RAY_DEDUP_LOGS", "0")
# Of the load of replicas: with Serve's own, 10 s, a queue would be full before it is seen.
os.environ.setdefault("RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S", "2")
# The log may be a file.
os.environ.setdefault("RAY_COLOR_PREFIX", "0")

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from cluster.autoscaling import ExpectedWaitPolicy
from cluster.directory import Directory
from cluster.ray_names import APP, DEPLOYMENT, NAMESPACE
from cluster.registry_link import RegistryLink
from cluster.release import Release
from cluster.replica import deployment
from cluster.replicas import Replicas
from engine.cpu.cores import available_cores
from service.errors import ConfigurationError
from service.options.cluster_settings import ClusterSettings

_log = logging.getLogger(__name__)

_REGISTRY_S = 60.0
# Serve takes a replica for lost that has failed three checks in a row.
_CHECKS = 3
_CHECK_EVERY_S = 2.0
# Beside --drain-timeout-s, for a replica to tell the front ends and to leave.
_LEAVING_S = 10.0
_MOST_STARTS = 3
_SERVE_LOG = {"log_level": "WARNING", "enable_access_log": False}
_LOOK_BACK_S, _SCALE_UP_S, _SCALE_DOWN_S = 5.0, 5.0, 60.0


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
        self._connect()
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        serve.start(proxy_location="Disabled", logging_config=_SERVE_LOG)
        self._registry.call("forget_failure", timeout_s=_REGISTRY_S)
        self._directory = Directory(self._registry)
        self._directory.start(replicas)
        # It returns once they are there, which the front end sees by itself.
        threading.Thread(target=self._deploy, args=(replicas,), name="deploy", daemon=True).start()
        return self._settings.fewest

    def trouble(self) -> str:
        """What Serve says of the deployment that does not come up."""
        app = serve.status().applications.get(APP)
        if app is None:
            return ""
        told = [one.message for one in app.deployments.values() if one.message]
        return " ".join(" ".join([app.message, *told]).split())

    def in_words(self) -> str:
        """How many there are to be."""
        return f"{self._settings.in_words} on the Ray cluster {self._settings.cluster}"

    def close(self) -> None:
        """End the replicas, unless other front ends have them, and leave the cluster."""
        if not self._is_connected:
            return
        self._is_connected = False
        others = 0 if self._directory is None else self._directory.stop()
        if others:
            _log.info("the replicas go on for %d other front ends", others)
        else:
            _log.info("ending the replicas")
            serve.delete(APP)
            self._registry.end()
        ray.shutdown()

    def _connect(self) -> None:
        # Ray installs a handler of its own, which would end this process at once.
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(
                address=self._settings.cluster,
                namespace=NAMESPACE,
                configure_logging=False,
                log_to_driver=True,
                **self._of_local(),
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            told = " ".join(str(error).split())
            raise ConfigurationError(
                f"--cluster {self._settings.cluster}: Ray cannot be reached there: {told}; "
                "`ray status --address ADDRESS` shows whether it runs; local starts one here"
            ) from error
        finally:
            signal.signal(signal.SIGTERM, before)
        self._is_connected = True

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

    def _deploy(self, replicas: Replicas) -> None:
        try:
            app = self._deployment().bind(self._release, self._cores(), self._host)
            serve.run(app, name=APP, route_prefix=None, logging_config=_SERVE_LOG)
        except (RuntimeError, ValueError, ray.exceptions.RayError) as error:
            replicas.failed(" ".join(str(error).split()))

    @property
    def _host(self) -> str:
        """Where replicas listen: those of a local cluster are for this machine only."""
        return "127.0.0.1" if self._settings.is_local else ""

    def _cores(self) -> int:
        return max(1, int(self._cpus))

    def _deployment(self) -> Any:
        settings = self._release.settings
        hang_s = settings.hang_timeout_s or 10.0
        count: dict[str, Any] = {"num_replicas": self._settings.fewest}
        if self._settings.max_replicas is not None:
            count = {
                "autoscaling_config": AutoscalingConfig(
                    min_replicas=self._settings.fewest,
                    max_replicas=self._settings.most,
                    look_back_period_s=_LOOK_BACK_S,
                    metrics_interval_s=2.0,
                    upscale_delay_s=_SCALE_UP_S,
                    downscale_delay_s=_SCALE_DOWN_S,
                    policy=AutoscalingPolicy(policy_function=ExpectedWaitPolicy),
                )
            }
        return deployment().options(
            name=DEPLOYMENT,
            ray_actor_options={
                "num_cpus": self._cpus,
                "num_gpus": self._settings.gpus_per_replica,
            },
            health_check_period_s=_CHECK_EVERY_S,
            health_check_timeout_s=hang_s / _CHECKS,
            graceful_shutdown_wait_loop_s=0.1,
            graceful_shutdown_timeout_s=settings.drain_timeout_s + _LEAVING_S,
            max_constructor_retry_count=_MOST_STARTS,
            **count,
        )
