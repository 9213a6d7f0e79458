"""Replicas of two releases in a Ray cluster, during an update."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import ray

from cluster import applications
from cluster.applications import State
from cluster.ray_names import NAMESPACE, UPDATE
from cluster.registry_link import RegistryLink
from cluster.release import Plan, Release, Rollout
from cluster.replica_entry import ReplicaEntry
from cluster.rolling_update import UpdateError

_LOOK_S = 0.5
_REGISTRY_S = 10.0


class RayFleet:
    """As `cluster.rolling_update.Fleet` has it.

    Args:
        old: what runs.
        new: what is to run; placed as the old one.
        ready_timeout_s: longest wait for one replica to load, or to end.
    """

    def __init__(self, old: Plan, new: Release, ready_timeout_s: float) -> None:
        self._old = old
        self._new = replace(old, release=new)
        self._ready_timeout_s = ready_timeout_s
        self._rollout = Rollout(replaces=old.release.name)
        self._registry = RegistryLink()

    def start_new(self) -> None:
        """One replica of the new release, of which no front end hears yet."""
        with suppress(ConnectionError):
            self._registry.call("forget_failure", timeout_s=_REGISTRY_S)
        applications.deploy(self._new, self._rollout, count=1)
        self._wait_for_new(1)

    def old(self) -> ReplicaEntry:
        """A replica of the old release."""
        return applications.entry(self._old.release.name)

    def new(self) -> ReplicaEntry:
        """That of the new one."""
        return applications.entry(self._new.release.name)

    def announce_new(self) -> None:
        """From now on front ends hear of replicas of the new release."""
        self._rollout = Rollout(is_announced=True, replaces=self._old.release.name)
        self.scale_new(1)

    def scale_new(self, count: int) -> None:
        """So many replicas of the new release."""
        applications.deploy(self._new, self._rollout, count=count)
        self._wait_for_new(count)
        self._wait_until_known(self._new, count)

    def scale_old(self, count: int) -> None:
        """So many replicas of the old release; 0 for its end."""
        name = self._old.release.name
        if count == 0:
            applications.end(name)
        else:
            applications.deploy(self._old, Rollout(is_announced=True), count=count)
            self._wait(name, lambda state: state.all == count, f"{count} replicas are left")

    def finish(self) -> None:
        """The new release is the server's: it scales as the old one did."""
        applications.deploy(self._new, Rollout(is_announced=True))

    def roll_back(self, count: int) -> None:
        """So many replicas of the old release, and then none of the new one."""
        applications.deploy(self._old, Rollout(is_announced=True), count=count)
        if self._rollout.is_announced:
            # Those of the new release serve until then.
            with suppress(UpdateError):
                self._wait_until_known(self._old, count)
        applications.end(self._new.release.name)
        applications.deploy(self._old, Rollout(is_announced=True))

    def _wait_for_new(self, count: int) -> None:
        name = self._new.release.name
        self._wait(name, lambda state: state.running == count == state.all, "it is ready")

    def _wait(self, release: str, done: Callable[[State], bool], what: str) -> None:
        end_s = time.monotonic() + self._ready_timeout_s
        while True:
            state = applications.state(release)
            if done(state):
                return
            if state.failure:
                told = self._own_words() or state.failure
                raise UpdateError(f"release {release} does not come up: {told}")
            if time.monotonic() > end_s:
                told = applications.trouble(release)
                raise UpdateError(
                    f"release {release}: not after {self._ready_timeout_s:g} s (--ready-timeout-s) "
                    f"that {what}; Ray Serve has {dict(state.replicas)}"
                    + (f" and says: {told}" if told else "")
                )
            time.sleep(_LOOK_S)

    def _own_words(self) -> str:
        """Why a replica could not start, in one line; "" where it has not said so."""
        with suppress(ConnectionError):
            return str(self._registry.call("look", timeout_s=_REGISTRY_S).failure)
        return ""

    def _wait_until_known(self, plan: Plan, count: int) -> None:
        """Until the registry, and so each front end, has so many of a release that are ready."""
        end_s = time.monotonic() + self._ready_timeout_s
        while True:
            try:
                view = self._registry.call("look", timeout_s=_REGISTRY_S)
            except ConnectionError as error:
                known, why = 0, str(error)
            else:
                ready = [one for one in view.entries if not one.why_not_ready]
                known = sum(one.release == plan.release.name for one in ready)
                why = f"the registry knows {known} of {count} ready replicas of it"
            if known >= count:
                return
            if time.monotonic() > end_s:
                raise UpdateError(f"release {plan.release.name}: {why}")
            time.sleep(_LOOK_S)


class UpdateLock:
    """One update at a time: an actor that ends with the process that has made it.

    Raises:
        UpdateError: another one is under way.
    """

    def __init__(self) -> None:
        try:
            self._actor = (
                ray.remote(_Held).options(name=UPDATE, namespace=NAMESPACE, num_cpus=0).remote()
            )
        except ValueError as error:
            raise UpdateError(
                "another update of this server is under way; wait for its end"
            ) from error

    def release(self) -> None:
        """Let others."""
        ray.kill(self._actor)


class _Held:
    """Nothing but its name."""
