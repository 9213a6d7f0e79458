"""A new release goes out replica by replica, and comes back where it is not as it has to be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from cluster.replica_entry import ReplicaEntry

Tell = Callable[[str], None]


class UpdateError(Exception):
    """The new release does not come up."""


class UnreachableError(Exception):
    """The cluster cannot be reached, or no server runs there."""


class NotUpdatedError(Exception):
    """The old release serves, as before."""


class Fleet(Protocol):
    """Replicas of the old release, and of the new one beside them.

    What makes replicas returns once front ends know them, and what ends some once their calls are
    answered. All raise UpdateError where that does not happen.
    """

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

    def scale_old(self, count: int) -> None:
        """So many replicas of the old release; 0 for its end."""

    def finish(self) -> None:
        """The new release is the server's: it scales as the old one did."""

    def roll_back(self, count: int) -> None:
        """So many replicas of the old release, and then none of the new one."""


def roll_out(
    fleet: Fleet,
    count: int,
    check: Callable[[ReplicaEntry, ReplicaEntry], None],
    tell: Tell,
    *,
    with_surge: bool,
) -> None:
    """Replace all replicas, one after the other.

    Args:
        fleet: of both releases.
        count: how many replicas the old one has.
        check: raises where the new release (the second replica) is not to go on.
        tell: gets a line for each step.
        with_surge: whether there is room for one replica more than there are; otherwise an old one
            ends before its successor starts.

    Raises:
        Exception: whatever has stopped it; the old release is as it was before.
    """
    try:
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
    except BaseException:
        tell(f"rolling back: {count} replicas of the old release, none of the new one")
        fleet.roll_back(count)
        raise
