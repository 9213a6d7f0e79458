"""What is done to the replicas of a running server: an update, or a look at them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray

from cluster import applications
from cluster.canary import CanaryError, CheckSet, check, require_same_classes
from cluster.interrupts import Interrupts
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
    roll_back,
    roll_out,
)
from service.errors import ConfigurationError
from service.options.cluster_settings import LOCAL
from service.processes.handler_program import check_settings

_REGISTRY_S = 10.0


def status(address: str) -> list[dict[str, object]]:
    """The replicas that front ends know, one a row.

    Raises:
        UnreachableError: there is no server.
    """
    interrupts = Interrupts()
    with _connected(address, interrupts), interrupts.expected():
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
        HalfUpdatedError: it was not, or not to its end.
        KeyboardInterrupt: nothing was changed by then.
    """

    def checked(old: ReplicaEntry, new: ReplicaEntry) -> None:
        require_same_classes(old, new)
        if check_set is None:
            tell("the new release is ready; its answers are not checked (--canary-images)")
        else:
            tell(check(old, new, check_set))

    interrupts = Interrupts()
    with _connected(address, interrupts):
        with interrupts.expected(), _unreachable():
            _require_server(address)
            try:
                lock = UpdateLock()
            except UpdateError as error:
                raise NotUpdatedError(str(error)) from error
        try:
            old = _settled(ready_timeout_s, tell, interrupts, with_surge=with_surge)
            with interrupts.expected(), _unreachable():
                plan, _ = applications.described(old)
                new = change(plan.release)
                check_settings(new.handler, new.for_handler, ended_by_signal=False)
                count = applications.state(old).running
            if not with_surge and count < 2:
                raise ConfigurationError(
                    "--no-surge ends a replica first, and there is only one; make room for another"
                )
            tell(f"release {old}, {count} replicas, is to become release {new.name}")
            fleet = RayFleet(plan, new, ready_timeout_s)
            try:
                roll_out(fleet, count, checked, tell, with_surge=with_surge, interrupts=interrupts)
            except (UpdateError, CanaryError, ConnectionError) as error:
                raise NotUpdatedError(f"rolled back: {error}") from error
            except KeyboardInterrupt as error:
                raise NotUpdatedError("rolled back: interrupted; the old release serves") from error
        except UpdateError as error:
            raise NotUpdatedError(f"no update was begun: {error}") from error
        finally:
            lock.release()


def _settled(
    ready_timeout_s: float, tell: Tell, interrupts: Interrupts, *, with_surge: bool
) -> str:
    """The release that serves; an update that was cut off is rolled back first."""
    with interrupts.expected(), _unreachable():
        there = applications.running()
        if len(there) == 1:
            return there[0]
        serving = [name for name in there if applications.state(name).running]
        plans = {name: applications.described(name) for name in serving}
        others = set(there) - set(serving)
        if len(plans) == 1 and (
            not any(rollout.replaces in there for _, rollout in plans.values())
            or all(_is_hopeless(name) for name in others)
        ):
            # None of the others can say what it is, since none of their replicas has come up.
            for name in others:
                tell(f"an update was cut off; ending release {name}, of which no replica runs")
                applications.end(name)
            return serving[0]
        cut_off = [name for name, (_, rollout) in plans.items() if rollout.replaces in plans]
        if not cut_off:
            raise UpdateError(
                f"several releases run, none of which replaces another: {', '.join(there)}"
            )
        plan, rollout = plans[cut_off[0]]
        old, _ = plans[rollout.replaces]
        tell(f"an update to release {plan.release.name} was cut off; rolling it back")
        states = (applications.state(one.release.name) for one in (plan, old))
        count = max(old.cluster.fewest, sum(state.running for state in states) - 1)
    fleet = RayFleet(old, plan.release, ready_timeout_s, rollout)
    roll_back(
        fleet,
        count,
        tell,
        with_surge=with_surge,
        interrupts=interrupts,
        why="an update was cut off",
    )
    return old.release.name


def _is_hopeless(release: str) -> bool:
    """Whether no replica of it is on its way."""
    state = applications.state(release)
    return bool(state.failure) or not state.all


def _entries() -> list[ReplicaEntry]:
    with _unreachable():
        return [*RegistryLink().call("look", timeout_s=_REGISTRY_S).entries]


@contextmanager
def _unreachable() -> Iterator[None]:
    """Nothing is begun yet: what does not answer is out of reach."""
    try:
        yield
    except ConnectionError as error:
        raise UnreachableError(str(error)) from error


def _require_server(address: str) -> None:
    with _unreachable():
        is_there = bool(applications.running())
    if not is_there:
        raise UnreachableError(
            f"no server has replicas on the Ray cluster {address}; `thriftpipe serve --cluster "
            f"{address}` starts one"
        )


@contextmanager
def _connected(address: str, interrupts: Interrupts) -> Iterator[None]:
    """In the cluster; SIGTERM is as an interrupt, so that what was begun is taken back."""
    # Ray's own lines, of which none tells more than those of the update.
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with interrupts.installed():
        try:
            if address == LOCAL:
                raise ConfigurationError(
                    "--cluster local: such a Ray is found by its own server only; `ray start "
                    "--head` starts one that can be updated, and `thriftpipe serve --cluster "
                    "ADDRESS` uses it"
                )
            host_and_port(address)
            try:
                with interrupts.expected():
                    connect(address, log_to_driver=False)
            except (ConfigurationError, ConnectionError) as error:
                raise UnreachableError(str(error)) from error
            yield
        finally:
            ray.shutdown()
