"""Which replica a call is given to, and how a registry's word is taken."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from dataclasses import replace

import pytest

from cluster import registry, replicas
from cluster.registry import WATCH_S, Registry
from cluster.release import Release
from cluster.replica_entry import ReplicaEntry
from cluster.replicas import Replicas
from service.handlers.handler_settings import HandlerSettings
from service.logs.log_settings import LogSettings
from service.options.server_settings import ServerSettings


def _entries(count: int) -> list[ReplicaEntry]:
    return [ReplicaEntry(f"r{n}", "127.0.0.1", 1 + n, "node", n, "release") for n in range(count)]


def _taken(there: Replicas, calls: int, images: int = 1) -> Counter[str]:
    found = (there.take(images) for _ in range(calls))
    return Counter(one.entry.name for one in found if one)


def test_calls_go_where_the_fewest_images_are_under_way() -> None:
    there = Replicas()
    there.update(_entries(3))
    assert _taken(there, 1, images=4)["r0"] == 1
    assert _taken(there, 8) == {"r1": 4, "r2": 4}
    assert _taken(there, 3) == {"r0": 1, "r1": 1, "r2": 1}


def test_of_many_replicas_none_is_forgotten() -> None:
    there = Replicas()
    there.update(_entries(40))
    assert len(_taken(there, 400)) == 40


def test_one_that_is_not_ready_is_the_last_choice() -> None:
    there = Replicas()
    first, second = _entries(2)
    there.update([replace(first, why_not_ready="it rebuilds its engine"), second])
    assert _taken(there, 4) == {"r1": 4}
    assert there.take(1, without=["r1"])
    assert there.take(1, without=["r0", "r1"]) is None


def test_one_that_is_silent_is_passed_over_until_it_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 100.0
    monkeypatch.setattr(replicas.time, "monotonic", lambda: now_s)
    there = Replicas()
    there.update(_entries(2))
    hung = there.take(1)
    assert hung
    now_s += 0.5
    other = there.take(1)
    assert other
    assert other is not hung
    now_s += 1.0
    other.answered()
    assert _taken(there, 5) == {"r1": 5}
    hung.answered()
    assert _taken(there, 3) == {"r0": 3}


def test_a_call_without_a_replica_waits_for_one() -> None:
    there = Replicas()
    timer = threading.Timer(0.01, there.update, [_entries(1)])
    timer.start()
    assert there.take(1, patience_s=30.0)
    timer.join()


def test_a_registry_tells_what_changes_and_forgets_what_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        now_s = 0.0
        monkeypatch.setattr(registry.time, "monotonic", lambda: now_s)
        monkeypatch.setattr(registry, "ANNOUNCE_EVERY_S", 0.001)
        own, (first, second) = Registry(), _entries(2)
        await own.announce(first)
        view = await own.watch("front", "", -1)
        assert view.entries == (first,)
        waiting = asyncio.ensure_future(own.watch("front", view.epoch, view.version))
        await own.announce(first)
        await own.announce(second)
        view = await waiting
        assert view.entries == (first, second)
        # One that ends is not brought back by what it had sent before.
        await own.withdraw("r0")
        await own.announce(first)
        view = await own.watch("front", view.epoch, view.version)
        assert view.entries == (second,)
        now_s = 8.0
        waiting = asyncio.ensure_future(own.watch("front", view.epoch, view.version))
        await asyncio.sleep(0)
        now_s = 11.0
        assert (await waiting).entries == ()

    asyncio.run(scenario())


def test_front_ends_count_as_long_as_they_ask() -> None:
    async def scenario() -> None:
        own = Registry()
        await own.announce(_entries(1)[0])
        await own.watch("one", "", -1)
        await own.watch("other", "", -1)
        view = await own.look()
        waiting = asyncio.ensure_future(own.watch("one", view.epoch, view.version))
        await asyncio.sleep(0)
        assert await own.leave("one") == 1
        # One that leaves is not kept waiting, nor counted for a question that comes after that.
        assert await asyncio.wait_for(waiting, WATCH_S / 2) == view
        assert await own.watch("one", view.epoch, view.version) == view
        assert await own.leave("other") == 0

    asyncio.run(scenario())


def test_a_failure_is_told_until_a_replica_serves() -> None:
    async def scenario() -> None:
        own = Registry()
        await own.fail("release", "the model is no classifier")
        assert (await own.watch("front", "", -1)).failure == "the model is no classifier"
        await own.announce(_entries(1)[0])
        assert (await own.watch("front", "", -1)).failure == ""

    asyncio.run(scenario())


def test_a_release_is_the_same_for_front_ends_that_differ_only_in_their_own() -> None:
    def release(settings: ServerSettings, model: str = "efficientnet_lite0") -> Release:
        for_handler = HandlerSettings(model=model, config="graph.toml")
        return Release.of("pipeline", for_handler, settings, LogSettings(), "")

    own = release(ServerSettings(port=1, host="10.0.0.1", drain_delay_s=3.0))
    assert own.name == release(ServerSettings(port=2, max_connections=7)).name
    assert own.name != release(ServerSettings(), model="resnet50").name
    assert own.name != release(ServerSettings(max_queue=7)).name
    # Other nodes have other working directories.
    assert own.for_handler.config
    assert own.for_handler.config.startswith("/")
    assert own.for_handler.model == "efficientnet_lite0"
    assert (own.settings.tls_cert, own.settings.metrics_port) == (None, None)


def test_a_release_that_cannot_start_hinders_no_front_end_that_has_replicas() -> None:
    """Such as that of an update, while another front end joins."""
    there = Replicas()
    there.update(_entries(1))
    there.failed("the new model does not load")
    assert there.wait_for(1, 60.0)
    assert not there.wait_for(2, 60.0)
