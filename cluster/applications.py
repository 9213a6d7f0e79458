"""Replicas of a release as an application of Ray Serve: deployed, scaled, looked at and ended.

Whatever is asked here raises ConnectionError where Ray does not answer.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatusOverview

from cluster.autoscaling import LoadPolicy
from cluster.ray_errors import asking, in_words
from cluster.ray_names import DEPLOYMENT, app_name, is_app_name, release_of
from cluster.release import Plan, Rollout
from cluster.replica import Replica
from cluster.replica_entry import ReplicaEntry
from cluster.rolling_update import UpdateError

_log = logging.getLogger(__name__)

SERVE_LOG = {"log_level": "WARNING", "enable_access_log": False}

# Serve takes a replica for lost that has failed three checks in a row.
_CHECKS = 3
_CHECK_EVERY_S = 2.0
# Beside --drain-timeout-s, for a replica to tell the front ends and to leave.
_LEAVING_S = 10.0
_MOST_STARTS = 3
_LOOK_BACK_S, _SCALE_UP_S = 5.0, 5.0
_ASK_S = 30.0
_FAILED = ("DEPLOY_FAILED", "UNHEALTHY")
_RUNNING, _DELETING = "RUNNING", "DELETING"
_SERVE = "Ray Serve"


def running() -> list[str]:
    """The releases that have an application, but for those that end."""
    return sorted(
        release_of(name)
        for name, app in _status().items()
        if is_app_name(name) and app.status != _DELETING
    )


def deploy(plan: Plan, rollout: Rollout, *, count: int | None = None) -> None:
    """Have replicas placed, or change how many there are or how far their update is.

    Serve restarts none for that: the release's name is their version.

    Args:
        plan: what they run.
        rollout: how far the update is that brings them.
        count: a fixed number; None for that of the plan, or its bounds.

    Raises:
        UpdateError: Serve does not take it.
    """
    app = _deployment(plan, count).options(user_config=asdict(rollout)).bind(plan)
    target = serve.RunTarget(
        app, name=app_name(plan.release.name), route_prefix=None, logging_config=SERVE_LOG
    )
    try:
        with asking(_SERVE):
            serve.run_many([target], wait_for_applications_running=False)
    except (RuntimeError, ValueError) as error:
        _log.debug("Ray Serve does not take release %s", plan.release.name, exc_info=True)
        raise UpdateError(in_words(error)) from error


def end(release: str, *, wait: bool = True) -> None:
    """End its replicas, once they have answered what they have; `wait` for that."""
    try:
        with asking(_SERVE):
            serve.delete(app_name(release), _blocking=wait)
    except TimeoutError:
        # After a minute of Serve's; it goes on with what was asked of it.
        _log.warning("the replicas of release %s still finish what they have", release)


@dataclass(frozen=True)
class State:
    """What Serve says of a release.

    Attributes:
        replicas: how many there are by Serve's word for their state.
        failure: why they do not come up, in one line; "" where that is not known.
    """

    replicas: Mapping[str, int]
    failure: str

    @property
    def running(self) -> int:
        """Those that run."""
        return self.replicas.get(_RUNNING, 0)

    @property
    def all(self) -> int:
        """All of them, those that start or end, too."""
        return sum(self.replicas.values())


def state(release: str) -> State:
    """What Serve says of a release; nothing of one that has no application."""
    app = _status().get(app_name(release))
    one = None if app is None else app.deployments.get(DEPLOYMENT)
    if app is None or one is None:
        return State({}, "" if app is None or app.status not in _FAILED else in_words(app.message))
    has_failed = one.status in _FAILED or app.status in _FAILED
    failure = (in_words(one.message) or in_words(app.message) or one.status) if has_failed else ""
    return State({str(name): n for name, n in one.replica_states.items()}, failure)


def trouble(release: str) -> str:
    """What Serve says of replicas that do not come up, in one line; "" where nothing is wrong."""
    app = _status().get(app_name(release))
    if app is None:
        return ""
    return in_words("\n".join([app.message, *(one.message for one in app.deployments.values())]))


def described(release: str) -> tuple[Plan, Rollout]:
    """What a release is made of, as one of its replicas tells.

    Raises:
        UpdateError: none of them answers.
    """
    plan, rollout = _ask(release, "described")
    return plan, rollout


def entry(release: str) -> ReplicaEntry:
    """One of its replicas, of which front ends need not have heard; raises as `described`."""
    found: ReplicaEntry = _ask(release, "entry")
    return found


def _ask(release: str, method: str) -> Any:
    try:
        handle = serve.get_app_handle(app_name(release))
        return getattr(handle, method).remote().result(timeout_s=_ASK_S)
    except (TimeoutError, ray.exceptions.RayError, RayServeException) as error:
        told = in_words(error)
        raise UpdateError(f"no replica of release {release} answers: {told}") from error


def _status() -> Mapping[str, ApplicationStatusOverview]:
    with asking(_SERVE):
        found: Mapping[str, ApplicationStatusOverview] = serve.status().applications
    return found


def _deployment(plan: Plan, count: int | None) -> Any:
    settings, cluster = plan.release.settings, plan.cluster
    hang_s = settings.hang_timeout_s or 10.0
    how_many: dict[str, Any] = {"num_replicas": count or cluster.fewest}
    if cluster.max_replicas is not None and count is None:
        how_many = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=cluster.fewest,
                max_replicas=cluster.most,
                look_back_period_s=_LOOK_BACK_S,
                metrics_interval_s=2.0,
                upscale_delay_s=_SCALE_UP_S,
                downscale_delay_s=cluster.scale_down_after_s,
                policy=AutoscalingPolicy(policy_function=LoadPolicy),
            )
        }
    return serve.deployment(Replica).options(
        name=DEPLOYMENT,
        # Of Serve's own: without it, it would take each deployment for one of other code, and
        # replace all replicas.
        version=plan.release.name,
        _internal=True,
        ray_actor_options={"num_cpus": plan.cpus, "num_gpus": cluster.gpus_per_replica},
        health_check_period_s=_CHECK_EVERY_S,
        health_check_timeout_s=hang_s / _CHECKS,
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=settings.drain_timeout_s + _LEAVING_S,
        max_constructor_retry_count=_MOST_STARTS,
        **how_many,
    )
