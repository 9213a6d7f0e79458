"""What is done to the replicas of a running server: an update, or a look at them."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray

from cluster import applications
from cluster.canary import CanaryError, CheckSet, check, require_same_classes
from cluster.ray_cluster import connect, host_and_port
from cluster.ray_fleet import RayFleet, UpdateLock
from cluster.registry_link import RegistryLink
from cluster.release import Release
from cluster.replica_entry import ReplicaEntry
from cluster.rolling_update import (
    NotUpdatedError,
    Tell,
    UnreachableError,
    UpdateError,
    roll_out,
)
from service.errors import ConfigurationError
from service.options.cluster_settings import LOCAL

_REGISTRY_S = 10.0


def status(address: str) -> list[dict[str, object]]:
    """The replicas that front ends know, one a row.

    Raises:
        UnreachableError: there is no server.
    """
    with _connected(address):
        _require_server(address)
        return [
            {
                "release": one.release,
                "replica": one.name,
                "node": one.node[:12],
                "address": f"{one.host}:{one.port}",
                "pid": one.pid,
                "state": one.why_not_ready or "ready",
            }
            for one in sorted(_entries(), key=lambda one: (one.release, one.name))
        ]


def update(
    address: str,
    change: Callable[[Release], Release],
    check_set: CheckSet | None,
    *,
    with_surge: bool,
    ready_timeout_s: float,
    tell: Tell,
) -> None:
    """Replace the release of a running server.

    Args:
        address: of the Ray cluster.
        change: makes the new release of the old one; ConfigurationError where that cannot be.
        check_set: what the new one has to answer; None for nothing.
        with_surge: whether there is room for one replica more.
        ready_timeout_s: longest wait for a replica.
        tell: gets a line for each step.

    Raises:
        ConfigurationError: nothing was done, since the settings cannot work.
        UnreachableError: there is no server.
        NotUpdatedError: the update was rolled back.
    """

    def checked(old: ReplicaEntry, new: ReplicaEntry) -> None:
        require_same_classes(old, new)
        if check_set is None:
            tell("the new release is ready; its answers are not checked (--canary-images)")
        else:
            tell(check(old, new, check_set))

    with _connected(address):
        _require_server(address)
        try:
            lock = UpdateLock()
        except UpdateError as error:
            raise NotUpdatedError(str(error)) from error
        try:
            old = _settled(ready_timeout_s, tell)
            plan, _ = applications.described(old)
            new = change(plan.release)
            count = applications.state(old).running
            if not with_surge and count < 2:
                raise ConfigurationError(
                    "--no-surge ends a replica first, and there is only one; make room for another"
                )
            tell(f"release {old}, {count} replicas, is to become release {new.name}")
            fleet = RayFleet(plan, new, ready_timeout_s)
            roll_out(fleet, count, checked, tell, with_surge=with_surge)
        except (UpdateError, CanaryError) as error:
            raise NotUpdatedError(f"rolled back: {error}") from error
        finally:
            lock.release()


def _settled(ready_timeout_s: float, tell: Tell) -> str:
    """The release that serves; an update that was cut off is rolled back first."""
    there = applications.running()
    if len(there) == 1:
        return there[0]
    serving = [name for name in there if applications.state(name).running]
    plans = {name: applications.described(name) for name in serving}
    if len(plans) == 1 and not any(rollout.replaces in there for _, rollout in plans.values()):
        # None of the others can say what it is, since none of their replicas has come up.
        for name in set(there) - set(serving):
            tell(f"an update to release {name} was cut off; ending what it has started")
            applications.end(name)
        return serving[0]
    for name, (plan, rollout) in plans.items():
        if rollout.replaces in plans:
            tell(f"an update to release {name} was cut off; rolling it back")
            old, _ = plans[rollout.replaces]
            states = (applications.state(one) for one in (name, rollout.replaces))
            count = max(old.cluster.fewest, sum(state.running for state in states) - 1)
            fleet = RayFleet(old, plan.release, ready_timeout_s)
            fleet.roll_back(count)
            return rollout.replaces
    raise UpdateError(f"several releases run, none of which replaces another: {', '.join(there)}")


def _entries() -> list[ReplicaEntry]:
    try:
        return [*RegistryLink().call("look", timeout_s=_REGISTRY_S).entries]
    except ConnectionError as error:
        raise UnreachableError(str(error)) from error


def _require_server(address: str) -> None:
    if not applications.running():
        raise UnreachableError(
            f"no server has replicas on the Ray cluster {address}; `thriftpipe serve --cluster "
            f"{address}` starts one"
        )


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """In the cluster; SIGTERM is as an interrupt, so that what was begun is taken back."""
    # Ray's own lines, of which none tells more than those of the update.
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if address == LOCAL:
            raise ConfigurationError(
                "--cluster local: such a Ray is found by its own server only; `ray start --head` "
                "starts one that can be updated, and `thriftpipe serve --cluster ADDRESS` uses it"
            )
        host_and_port(address)
        try:
            connect(address, log_to_driver=False)
        except (ConfigurationError, ConnectionError) as error:
            raise UnreachableError(str(error)) from error
        yield
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, before)
