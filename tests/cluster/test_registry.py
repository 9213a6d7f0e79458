"""What the registry knows of replicas and front ends, and that it forgets those that are gone."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from cluster import registry
from cluster.registry import Registry
from cluster.replica_entry import ReplicaEntry

ENTRY = ReplicaEntry("r", "127.0.0.1", 1, "node", 1, "release")


class Clock:
    """The registry's clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        monkeypatch.setattr(registry.time, "monotonic", lambda: self.now_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def sizes(of: Registry) -> dict[str, int]:
    """Of all that may grow."""
    return {name: len(it) for name, it in vars(of).items() if isinstance(it, dict | set | list)}


def test_what_has_come_and_gone_is_forgotten(clock: Clock) -> None:
    async def use() -> dict[str, int]:
        known = Registry()
        for number in range(500):
            # One withdraws, and one is killed; a front end leaves, and one is killed.
            for name in (f"ends-{number}", f"dies-{number}"):
                await known.announce(replace(ENTRY, name=name))
            await known.withdraw(f"ends-{number}")
            await known.watch(f"leaves-{number}", "", 0)
            await known.watch(f"dies-{number}", "", 0)
            await known.leave(f"leaves-{number}")
            clock.now_s += 5.0
        return sizes(known)

    found = asyncio.run(use())
    assert len(found) >= 4
    assert max(found.values()) < 20, found


def test_a_late_announcement_of_one_that_has_withdrawn_does_not_count(clock: Clock) -> None:
    async def use() -> None:
        known = Registry()
        await known.announce(ENTRY)
        await known.withdraw(ENTRY.name)
        clock.now_s += 5.0
        await known.withdraw("another")
        await known.announce(ENTRY)
        assert (await known.look()).entries == ()

    asyncio.run(use())


def test_a_failure_is_that_of_its_release() -> None:
    async def use() -> None:
        known = Registry()
        await known.fail("new", "no such model")
        view = await known.look()
        assert (view.failed_release, view.failure) == ("new", "no such model")
        await known.forget_failure()
        view = await known.look()
        assert (view.failed_release, view.failure) == ("", "")

    asyncio.run(use())
