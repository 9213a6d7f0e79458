"""Replicas of two releases in a Ray cluster, during an update."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import ray

from cluster import applications
from cluster.applications import State
from cluster.ray_errors import asking
from cluster.ray_names import NAMESPACE, UPDATE
from cluster.registry import View
from cluster.registry_link import RegistryLink
from cluster.release import Plan, Release, Rollout
from cluster.replica_entry import ReplicaEntry
from cluster.rolling_update import UpdateError

_LOOK_S = 0.5
_REGISTRY_S = 10.0
# Of Serve's controller, to look at what it was told.
_SERVE_LOOKS_S = 2.0
_ANNOUNCED = Rollout(is_announced=True)


class RayFleet:
    """As `cluster.rolling_update.Fleet` has it.

    Args:
        old: what runs.
        new: what is to run; placed as the old one.
        ready_timeout_s: longest wait for one replica to load, or to end.
        rollout: how far an update of this kind is that was begun before; None for none.
    """

    def __init__(
        self, old: Plan, new: Release, ready_timeout_s: float, rollout: Rollout | None = None
    ) -> None:
        self._old = old
        self._new = replace(old, release=new)
        self._ready_timeout_s = ready_timeout_s
        self._rollout = rollout or Rollout(replaces=old.release.name)
        self._registry = RegistryLink()

    def start_new(self) -> None:
        """One replica of the new release, of which no front end hears yet."""
        with suppress(ConnectionError):
            self._registry.call("forget_failure", timeout_s=_REGISTRY_S)
        applications.deploy(self._new, self._rollout, count=1)
        self._wait_for(self._new, 1)

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
        self._wait_for(self._new, count)
        self._wait_until_known(self._new, count)

    def shrink_new(self, count: int) -> None:
        """No more replicas of the new release than these, whatever the others are up to."""
        name = self._new.release.name
        if count == 0:
            applications.end(name)
        else:
            applications.deploy(self._new, self._rollout, count=count)
            self._wait(name, lambda state: state.all <= count, f"{count} replicas are left")

    def scale_old(self, count: int) -> None:
        """So many replicas of the old release, fewer than before; 0 for its end."""
        name = self._old.release.name
        if count == 0:
            applications.end(name)
        else:
            applications.deploy(self._old, _ANNOUNCED, count=count)
            self._wait(name, lambda state: state.all == count, f"{count} replicas are left")

    def grow_old(self, count: int) -> None:
        """So many replicas of the old release again."""
        self._registry.call("forget_failure", timeout_s=_REGISTRY_S)
        applications.deploy(self._old, _ANNOUNCED, count=count)
        self._wait_for(self._old, count)
        self._wait_until_known(self._old, count)

    def order(self, old: int, new: int) -> None:
        """So many replicas of the old and of the new release, without waiting for them."""
        for plan, rollout, count in (
            (self._old, _ANNOUNCED, old),
            (self._new, self._rollout, new),
        ):
            if count:
                applications.deploy(plan, rollout, count=count)
            else:
                applications.end(plan.release.name, wait=False)

    def ready(self) -> tuple[int, int]:
        """How many replicas of the old and of the new release front ends know that are ready."""
        return self._ready(self._old), self._ready(self._new)

    def release_names(self) -> tuple[str, str]:
        """What the old and the new release are called."""
        return self._old.release.name, self._new.release.name

    def finish(self) -> None:
        """The new release is the server's: it scales as the old one did."""
        applications.deploy(self._new, _ANNOUNCED)

    def restore(self) -> None:
        """The old release is the server's again, and scales as before."""
        applications.deploy(self._old, _ANNOUNCED)

    def _wait_for(self, plan: Plan, count: int) -> None:
        name = plan.release.name
        self._wait(
            name,
            lambda state: state.running == count == state.all,
            "it is ready" if count == 1 else f"{count} replicas of it are ready",
            fails=True,
        )

    def _wait(
        self, release: str, done: Callable[[State], bool], what: str, *, fails: bool = False
    ) -> None:
        """Until it is done; UpdateError at once where `fails`, and a replica cannot start."""
        began_s = time.monotonic()
        while True:
            state = applications.state(release)
            if done(state):
                return
            passed_s = time.monotonic() - began_s
            if fails and (told := self._own_words(release)):
                raise UpdateError(f"release {release} does not come up: {told}")
            # What Serve says may be of what was there before.
            if fails and state.failure and passed_s > _SERVE_LOOKS_S:
                raise UpdateError(f"release {release} does not come up: {state.failure}")
            if passed_s > self._ready_timeout_s:
                told = applications.trouble(release)
                raise UpdateError(
                    f"release {release}: not after {self._ready_timeout_s:g} s (--ready-timeout-s) "
                    f"that {what}; Ray Serve has {dict(state.replicas)}"
                    + (f" and says: {told}" if told else "")
                )
            time.sleep(_LOOK_S)

    def _own_words(self, release: str) -> str:
        """Why a replica of it could not start, in one line; "" where none has said so."""
        with suppress(ConnectionError):
            view: View = self._registry.call("look", timeout_s=_REGISTRY_S)
            return view.failure if view.failed_release == release else ""
        return ""

    def _ready(self, plan: Plan) -> int:
        """How many replicas of a release front ends know that are ready, and that are to stay."""
        view: View = self._registry.call("look", timeout_s=_REGISTRY_S)
        name = plan.release.name
        known = sum(one.release == name and not one.why_not_ready for one in view.entries)
        return min(known, applications.state(name).running)

    def _wait_until_known(self, plan: Plan, count: int) -> None:
        """Until the registry, and so each front end, has so many of a release that are ready."""
        end_s = time.monotonic() + self._ready_timeout_s
        while True:
            try:
                known = self._ready(plan)
                why = f"the registry knows {known} of {count} ready replicas of it"
            except ConnectionError as error:
                known, why = 0, str(error)
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
            with asking("the update's lock"):
                self._actor = (
                    ray.remote(_Held).options(name=UPDATE, namespace=NAMESPACE, num_cpus=0).remote()
                )
        except ValueError as error:
            raise UpdateError(
                "another update of this server is under way; wait for its end"
            ) from error

    def release(self) -> None:
        """Let others."""
        # It ends with this process anyway.
        with suppress(ConnectionError), asking("the update's lock"):
            ray.kill(self._actor)


class _Held:
    """Nothing but its name."""
