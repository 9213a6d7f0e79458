"""The order of a rolling update, and of its way back, whatever makes the replicas."""

from __future__ import annotations

import pytest

from cluster.canary import CanaryError
from cluster.replica_entry import ReplicaEntry
from cluster.rolling_update import UpdateError, roll_out

OLD = ReplicaEntry("old", "127.0.0.1", 1, "node", 1, "a")
NEW = ReplicaEntry("new", "127.0.0.1", 2, "node", 2, "b")


class CountedFleet:
    """How many replicas of each release there are after each step."""

    def __init__(self, count: int, fails_at: str = "") -> None:
        self.counts = [count, 0]
        self.seen: list[tuple[int, int]] = []
        self.announced = False
        self.is_finished = False
        self._fails_at = fails_at

    def start_new(self) -> None:
        self._set(1, 1)

    def old(self) -> ReplicaEntry:
        return OLD

    def new(self) -> ReplicaEntry:
        return NEW

    def announce_new(self) -> None:
        self.announced = True

    def scale_new(self, count: int) -> None:
        assert self.announced
        self._set(1, count)

    def scale_old(self, count: int) -> None:
        self._set(0, count)

    def finish(self) -> None:
        self.is_finished = True

    def roll_back(self, count: int) -> None:
        self._fails_at = ""
        self._set(0, count)
        self._set(1, 0)

    def _set(self, which: int, count: int) -> None:
        if f"{which} {count}" == self._fails_at:
            raise UpdateError("it does not come up")
        self.counts[which] = count
        self.seen.append((self.counts[0], self.counts[1]))


def run(fleet: CountedFleet, *, with_surge: bool = True, error: Exception | None = None) -> str:
    told: list[str] = []

    def check(old: ReplicaEntry, new: ReplicaEntry) -> None:
        assert (old, new) == (OLD, NEW)
        assert not fleet.announced
        if error is not None:
            raise error

    roll_out(fleet, fleet.counts[0], check, told.append, with_surge=with_surge)
    return "\n".join(told)


def test_a_replica_comes_before_one_goes() -> None:
    fleet = CountedFleet(3)
    told = run(fleet)
    assert fleet.seen == [(3, 1), (2, 1), (2, 2), (1, 2), (1, 3), (0, 3)]
    assert fleet.is_finished
    assert "3 of 3 replicas run the new release" in told


def test_without_room_one_goes_before_its_successor_comes() -> None:
    fleet = CountedFleet(3)
    run(fleet, with_surge=False)
    assert fleet.seen == [(2, 0), (2, 1), (1, 1), (1, 2), (0, 2), (0, 3)]


def test_one_replica_is_replaced_without_a_gap() -> None:
    fleet = CountedFleet(1)
    run(fleet)
    assert fleet.seen == [(1, 1), (0, 1)]


def test_a_canary_that_fails_is_heard_of_by_no_front_end() -> None:
    fleet = CountedFleet(3)
    with pytest.raises(CanaryError, match="3 of 9"):
        run(fleet, error=CanaryError("3 of 9 images"))
    assert not fleet.announced
    assert fleet.seen == [(3, 1), (3, 1), (3, 0)]


@pytest.mark.parametrize("fails_at", ["1 1", "1 2", "0 1", "1 3", "0 0"])
def test_whatever_fails_all_is_as_before(fails_at: str) -> None:
    fleet = CountedFleet(3, fails_at)
    with pytest.raises(UpdateError):
        run(fleet)
    assert fleet.counts == [3, 0]
    assert not fleet.is_finished


def test_an_interrupt_rolls_back() -> None:
    fleet = CountedFleet(2)

    def interrupted(*_: ReplicaEntry) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        roll_out(fleet, 2, interrupted, lambda _: None, with_surge=True)
    assert fleet.counts == [2, 0]
