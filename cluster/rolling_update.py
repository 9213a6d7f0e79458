"""A new release goes out replica by replica, and comes back where it is not as it has to be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from cluster.interrupts import Interrupts
from cluster.replica_entry import ReplicaEntry

Tell = Callable[[str], None]


class UpdateError(Exception):
    """The new release does not come up."""


class UnreachableError(Exception):
    """The cluster cannot be reached, or no server runs there."""


class NotUpdatedError(Exception):
    """The old release serves, as before."""


class HalfUpdatedError(Exception):
    """Replicas of both releases may be there; the message says what is known of them."""


class Fleet(Protocol):
    """Replicas of the old release, and of the new one beside them.

    What makes replicas returns once front ends know them, and what ends some once their calls are
    answered. All raise UpdateError where that does not happen.
    """

    def ready(self) -> tuple[int, int]:
        """How many replicas of the old and of the new release front ends know that are ready."""

    def start_new(self) -> None:
        """One replica of the new release, of which no front end hears yet."""

    def old(self) -> ReplicaEntry:
        """A replica of the old release."""

    def new(self) -> ReplicaEntry:
        """That of the new one."""

    def announce_new(self) -> None:
        """From now on front ends hear of replicas of the new release."""

    def scale_new(self, count: int) -> None:
        """So many replicas of the new release."""

    def shrink_new(self, count: int) -> None:
        """No more replicas of the new release than these, whatever the others are up to."""

    def scale_old(self, count: int) -> None:
        """So many replicas of the old release, fewer than before; 0 for its end."""

    def grow_old(self, count: int) -> None:
        """So many replicas of the old release again."""

    def finish(self) -> None:
        """The new release is the server's: it scales as the old one did."""

    def order(self, old: int, new: int) -> None:
        """So many replicas of the old and of the new release, without waiting for them."""

    def restore(self) -> None:
        """The old release is the server's again, and scales as before."""

    def release_names(self) -> tuple[str, str]:
        """What the old and the new release are called."""


def roll_out(
    fleet: Fleet,
    count: int,
    check: Callable[[ReplicaEntry, ReplicaEntry], None],
    tell: Tell,
    *,
    with_surge: bool,
    interrupts: Interrupts,
) -> None:
    """Replace all replicas, one after the other.

    Args:
        fleet: of both releases.
        count: how many replicas the old one has.
        check: raises where the new release (the second replica) is not to go on.
        tell: gets a line for each step.
        with_surge: whether there is room for one replica more than there are; otherwise an old one
            ends before its successor starts.
        interrupts: the first one rolls back, and the second one ends that.

    Raises:
        HalfUpdatedError: something has stopped it, and the way back, too.
        Exception: whatever has stopped it; the old release is as it was before.
    """
    try:
        with interrupts.expected():
            if not with_surge:
                tell(f"ending one of {count} replicas, to make room")
                fleet.scale_old(count - 1)
            tell("starting a replica of the new release, which gets no calls of clients yet")
            fleet.start_new()
            check(fleet.old(), fleet.new())
            fleet.announce_new()
            for replaced in range(1, count + 1):
                if replaced > 1:
                    if not with_surge:
                        fleet.scale_old(count - replaced)
                    fleet.scale_new(replaced)
                if with_surge:
                    fleet.scale_old(count - replaced)
                tell(f"{replaced} of {count} replicas run the new release")
            fleet.finish()
    except BaseException as error:
        roll_back(
            fleet,
            count,
            tell,
            with_surge=with_surge,
            interrupts=interrupts,
            why=_reason(error),
        )
        raise


def roll_back(
    fleet: Fleet,
    count: int,
    tell: Tell,
    *,
    with_surge: bool,
    interrupts: Interrupts,
    why: str,
) -> None:
    """Bring the old release back, one replica after the other.

    There are never fewer ready replicas than when it began, but for the one that ends first where
    there is no room for its successor.

    Args:
        fleet: of both releases.
        count: how many replicas the old one has to have.
        tell: gets a line for each step.
        with_surge: whether there is room for one replica more than these.
        interrupts: the next one ends this.
        why: what has stopped the update.

    Raises:
        HalfUpdatedError: the old release does not come back, or this was interrupted, too.
    """
    try:
        with interrupts.expected():
            tell(
                f"rolling back: {count} replicas of the old release, none of the new one (an "
                "interrupt now leaves replicas of both)"
            )
            _bring_back(fleet, count, tell, count + 1 if with_surge else count)
    # Whatever it is: what serves must be told.
    except (Exception, KeyboardInterrupt) as error:
        raise HalfUpdatedError(
            f"{why}; and not rolled back: {_reason(error)}. {_state_in_words(fleet)}; they go on. "
            "`thriftpipe cluster status` shows them; where there are both, the next update rolls "
            "back first"
        ) from error


def _bring_back(fleet: Fleet, count: int, tell: Tell, most: int) -> None:
    old, new = fleet.ready()
    # Those that do not come up only take room.
    fleet.shrink_new(new)
    while old < count:
        left = new - 1 if new and old + new >= most else new
        try:
            if left < new:
                fleet.shrink_new(left)
            fleet.grow_old(old + 1)
        except (Exception, KeyboardInterrupt) as error:
            fleet.order(old, new)
            if left < new and not isinstance(error, KeyboardInterrupt):
                tell("the old release does not come back; the new one gets its replica back")
                fleet.scale_new(new)
            raise
        old, new = old + 1, left
        tell(f"{old} of {count} replicas run the old release again")
    if new:
        fleet.shrink_new(0)
    fleet.restore()


def _state_in_words(fleet: Fleet) -> str:
    """How many replicas of either release serve, as far as that is known."""
    old_name, new_name = fleet.release_names()
    try:
        old, new = fleet.ready()
    # Whatever keeps it from being known.
    except Exception:  # noqa: BLE001
        return f"How many replicas of releases {old_name} (old) and {new_name} serve is not known"
    return f"{old} ready replicas of release {old_name} (old) and {new} of {new_name} (new) serve"


def _reason(error: BaseException) -> str:
    return "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
