"""The order of a rolling update, and of its way back, whatever makes the replicas."""

from __future__ import annotations

import signal

import pytest

from cluster.canary import CanaryError
from cluster.interrupts import Interrupts
from cluster.replica_entry import ReplicaEntry
from cluster.rolling_update import HalfUpdatedError, UpdateError, roll_out
from tests.waiting import wait_until

OLD = ReplicaEntry("old", "127.0.0.1", 1, "node", 1, "a")
NEW = ReplicaEntry("new", "127.0.0.1", 2, "node", 2, "b")


class CountedFleet:
    """How many replicas of each release there are after each step, of which all are ready.

    Args:
        count: of the old release.
        fails_at: release and number of replicas that are not reached, such as "1 2".
        room: for so many replicas of both.
    """

    def __init__(self, count: int, fails_at: str = "", room: int | None = None) -> None:
        self.counts = [count, 0]
        self.seen: list[tuple[int, int]] = []
        self.announced = False
        self.is_finished = False
        self.is_restored = False
        self.is_known = True
        # What happens when an old replica is to come again.
        self.on_growth: BaseException | None = None
        self.growths_before = 0
        self._fails_at = fails_at
        self._room = room or count + 1

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

    def ready(self) -> tuple[int, int]:
        if not self.is_known:
            raise ConnectionError("the registry does not answer")
        return self.counts[0], self.counts[1] if self.announced else 0

    def shrink_new(self, count: int) -> None:
        assert count <= self.counts[1]
        self._fails_at = ""
        self._set(1, count)

    def grow_old(self, count: int) -> None:
        if self.on_growth is not None and count > self.growths_before:
            raise self.on_growth
        self._set(0, count)

    def order(self, old: int, new: int) -> None:
        self.counts = [old, new]

    def restore(self) -> None:
        self.is_restored = True

    def release_names(self) -> tuple[str, str]:
        return "a", "b"

    def _set(self, which: int, count: int) -> None:
        if f"{which} {count}" == self._fails_at:
            raise UpdateError("it does not come up")
        self.counts[which] = count
        assert sum(self.counts) <= self._room
        self.seen.append((self.counts[0], self.counts[1]))


def run(fleet: CountedFleet, *, with_surge: bool = True, error: Exception | None = None) -> str:
    told: list[str] = []

    def check(old: ReplicaEntry, new: ReplicaEntry) -> None:
        assert (old, new) == (OLD, NEW)
        assert not fleet.announced
        if error is not None:
            raise error

    roll_out(
        fleet,
        fleet.counts[0],
        check,
        told.append,
        with_surge=with_surge,
        interrupts=Interrupts(),
    )
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
    assert fleet.seen == [(3, 1), (3, 0)]


@pytest.mark.parametrize("fails_at", ["1 1", "1 2", "0 1", "1 3", "0 0"])
def test_whatever_fails_all_is_as_before(fails_at: str) -> None:
    fleet = CountedFleet(3, fails_at)
    with pytest.raises(UpdateError):
        run(fleet)
    assert fleet.counts == [3, 0]
    assert min(map(sum, fleet.seen)) >= 3
    assert fleet.is_restored
    assert not fleet.is_finished


@pytest.mark.parametrize("fails_at", ["1 1", "0 1", "1 2", "1 3"])
def test_without_room_the_way_back_ends_one_before_another_comes(fails_at: str) -> None:
    fleet = CountedFleet(3, fails_at, room=3)
    with pytest.raises(UpdateError):
        run(fleet, with_surge=False)
    assert fleet.counts == [3, 0]
    assert min(map(sum, fleet.seen)) >= 2


def test_an_interrupt_rolls_back() -> None:
    fleet = CountedFleet(2)

    def interrupted(*_: ReplicaEntry) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        roll_out(fleet, 2, interrupted, lambda _: None, with_surge=True, interrupts=Interrupts())
    assert fleet.counts == [2, 0]


@pytest.mark.parametrize("with_surge", [True, False])
@pytest.mark.parametrize(("fails_at", "comes_back"), [("1 2", 0), ("1 3", 0), ("1 3", 1)])
def test_an_old_release_that_does_not_come_back_costs_no_replica(
    fails_at: str, comes_back: int, with_surge: bool
) -> None:
    fleet = CountedFleet(3, fails_at, room=None if with_surge else 3)
    fleet.on_growth = UpdateError("release a: no room")
    found: list[int] = []

    def tell(line: str) -> None:
        if line.startswith("rolling back"):
            found.append(sum(fleet.counts))
            fleet.growths_before = fleet.counts[0] + comes_back

    with pytest.raises(HalfUpdatedError) as raised:
        roll_out(fleet, 3, lambda *_: None, tell, with_surge=with_surge, interrupts=Interrupts())
    old, new = fleet.counts
    assert old + new >= min(3, *found)
    assert old < 3
    assert not fleet.is_restored
    line = str(raised.value)
    assert line.startswith("it does not come up; and not rolled back: release a: no room.")
    assert f"{old} ready replicas of release a (old) and {new} of b (new) serve" in line


def test_a_second_interrupt_leaves_what_serves() -> None:
    fleet = CountedFleet(3, "1 3")
    fleet.on_growth = KeyboardInterrupt()
    with pytest.raises(HalfUpdatedError, match="not rolled back: interrupted"):
        run(fleet)
    assert fleet.counts == [1, 2]


@pytest.mark.parametrize(
    ("more", "ended", "counts"),
    [(0, KeyboardInterrupt, [3, 0]), (1, HalfUpdatedError, [3, 1]), (5, HalfUpdatedError, [3, 1])],
)
def test_signals_that_come_at_once_hide_nothing(
    more: int, ended: type[BaseException], counts: list[int]
) -> None:
    """The first one rolls back, the second one ends that, and all others do nothing."""
    fleet, interrupts = CountedFleet(3), Interrupts()

    def send(number: signal.Signals) -> None:
        came = interrupts._came
        signal.raise_signal(number)
        # Other threads of the process can put the handler off.
        wait_until(lambda: interrupts._came > came)

    def signalled(*_: ReplicaEntry) -> None:
        try:
            send(signal.SIGINT)
        finally:
            # While that one is handled.
            for _ in range(more):
                send(signal.SIGTERM)

    with interrupts.installed(), pytest.raises(ended):
        roll_out(fleet, 3, signalled, lambda _: None, with_surge=True, interrupts=interrupts)
    assert fleet.counts == counts


def test_where_the_state_is_not_known_nothing_is_ended() -> None:
    fleet = CountedFleet(3, "1 2")
    fleet.announced = True

    def check(*_: ReplicaEntry) -> None:
        fleet.is_known = False

    with pytest.raises(HalfUpdatedError, match=r"the registry does not answer.* is not known"):
        roll_out(fleet, 3, check, lambda _: None, with_surge=True, interrupts=Interrupts())
    assert fleet.counts == [2, 1]
