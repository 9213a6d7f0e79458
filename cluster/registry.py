"""Which replicas there are: a named actor of Ray's, which has nothing that it must not lose.

Replicas announce themselves every other second, so that a registry that was restarted knows them
all again after that time. Front ends wait for changes (long poll), and go on with what they know
while there is no registry. No image passes through it.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import NamedTuple

from cluster.replica_entry import ReplicaEntry

ANNOUNCE_EVERY_S = 2.0
# One that has not announced itself for so long is gone.
EXPIRES_AFTER_S = 10.0
# A front end that has not asked for so long is gone.
_FRONT_END_EXPIRES_S = 30.0
# Later than what was on its way when a replica withdrew or a front end left.
_LATE_S = 60.0
WATCH_S = 5.0


class View(NamedTuple):
    """What a registry knows.

    Attributes:
        epoch: tells one registry from the one before it.
        version: grows with each change.
        entries: the replicas.
        failure: why the last one that started could not, in one line; "" for none.
        failed_release: what that one was to run.
    """

    epoch: str
    version: int
    entries: tuple[ReplicaEntry, ...]
    failure: str
    failed_release: str = ""


class Registry:
    """Used by one event loop."""

    def __init__(self) -> None:
        self._epoch = uuid.uuid4().hex
        self._version = 0
        self._changed = asyncio.Condition()
        self._entries: dict[str, ReplicaEntry] = {}
        self._announced_s: dict[str, float] = {}
        self._front_ends: dict[str, float] = {}
        # Front ends that have ended, whose late questions do not count, and since when they have.
        self._left_s: dict[str, float] = {}
        # Withdrawn ones, whose late announcements do not count, and since when they are.
        self._withdrawn_s: dict[str, float] = {}
        self._failure = self._failed_release = ""

    async def announce(self, entry: ReplicaEntry) -> None:
        """A replica serves, or is not ready just now."""
        if entry.name in self._withdrawn_s:
            return
        self._announced_s[entry.name] = time.monotonic()
        if self._entries.get(entry.name) != entry:
            self._entries[entry.name] = entry
            self._failure = self._failed_release = ""
            # Also where no front end asks.
            await self._expire()
            await self._tell()

    async def withdraw(self, name: str) -> None:
        """A replica takes no more requests."""
        now_s = time.monotonic()
        _forget_before(self._withdrawn_s, now_s - _LATE_S)
        self._withdrawn_s[name] = now_s
        self._announced_s.pop(name, None)
        if self._entries.pop(name, None) is not None:
            await self._tell()

    async def fail(self, release: str, why: str) -> None:
        """A replica of this release could not start: a setting cannot work."""
        self._failure, self._failed_release = why, release
        await self._tell()

    async def forget_failure(self) -> None:
        """Replicas are started with other settings, perhaps."""
        self._failure = self._failed_release = ""
        await self._tell()

    async def watch(self, front_end: str, epoch: str, version: int) -> View:
        """What is known, once that is new to the front end, or it leaves, or after some seconds."""
        now_s = time.monotonic()
        _forget_before(self._front_ends, now_s - _FRONT_END_EXPIRES_S)
        if front_end not in self._left_s:
            self._front_ends[front_end] = now_s
        end_s = now_s + WATCH_S
        while front_end not in self._left_s and (self._epoch, self._version) == (epoch, version):
            left_s = min(end_s - time.monotonic(), ANNOUNCE_EVERY_S)
            if left_s <= 0:
                break
            try:
                async with self._changed:
                    await asyncio.wait_for(self._changed.wait(), left_s)
            except asyncio.TimeoutError:
                await self._expire()
        return await self.look()

    async def look(self) -> View:
        """What is known, for one who is no front end."""
        entries = tuple(self._entries.values())
        return View(self._epoch, self._version, entries, self._failure, self._failed_release)

    async def leave(self, front_end: str) -> int:
        """A front end ends, and watches no more; how many others there are."""
        now_s = time.monotonic()
        _forget_before(self._left_s, now_s - _LATE_S)
        self._left_s[front_end] = now_s
        self._front_ends.pop(front_end, None)
        async with self._changed:
            self._changed.notify_all()
        _forget_before(self._front_ends, now_s - _FRONT_END_EXPIRES_S)
        return len(self._front_ends)

    async def _expire(self) -> None:
        oldest_s = time.monotonic() - EXPIRES_AFTER_S
        late = [name for name in self._entries if self._announced_s[name] < oldest_s]
        for name in late:
            del self._entries[name], self._announced_s[name]
        if late:
            await self._tell()

    async def _tell(self) -> None:
        self._version += 1
        async with self._changed:
            self._changed.notify_all()


def _forget_before(times_s: dict[str, float], oldest_s: float) -> None:
    """Drop what is older, so that nothing grows with all that has ever come and gone."""
    for name in [name for name, at_s in times_s.items() if at_s < oldest_s]:
        del times_s[name]
