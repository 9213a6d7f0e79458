"""What only a client of an event loop has: tasks that are cancelled, and no threads."""

from __future__ import annotations

import asyncio
import gc
import random
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from service.client import (
    AsyncClient,
    ClientClosedError,
    ConnectionFailedError,
    DeadlineExceededError,
)
from tests.serving import TIMEOUT_S

HOST = "127.0.0.1"


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test in an event loop, in which nothing may go wrong unseen."""
    complaints: list[dict[str, Any]] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
        await test()
        await asyncio.sleep(0)

    asyncio.run(watched())
    # Errors that were not looked at are told when their futures are collected.
    gc.collect()
    assert not complaints


async def entered(scripted: Any, count: int = 1) -> None:
    """Wait until so many calls are in the handler, in a thread that is none of the loop's."""

    def wait() -> None:
        for _ in range(count):
            assert scripted.entered.acquire(timeout=TIMEOUT_S)

    with ThreadPoolExecutor(1, "handler") as thread:
        await asyncio.get_running_loop().run_in_executor(thread, wait)


def test_as_many_calls_as_one_likes_wait_without_a_thread_for_any(
    scripted_server: Any, scripted: Any
) -> None:
    async def test() -> None:
        async with AsyncClient(HOST, scripted_server.port, max_connections=40) as client:
            await client.ping()
            calls = [asyncio.ensure_future(client.classify(b"wait%d" % n)) for n in range(40)]
            await entered(scripted, 40)
            threads = [t.name for t in threading.enumerate() if t.name.startswith("asyncio_")]
            scripted.release.set()
            assert not threads
            assert [result.class_id for result in await asyncio.gather(*calls)] == [0] * 40

    run(test)


def test_a_cancelled_call_ends_at_once_and_its_reply_reaches_no_other(
    scripted_server: Any, scripted: Any
) -> None:
    async def test() -> None:
        async with AsyncClient(HOST, scripted_server.port, max_connections=1) as client:
            call = asyncio.ensure_future(client.classify(b"wait"))
            await entered(scripted)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            # Its one connection is free again, and the late reply comes on none.
            scripted.release.set()
            for class_id in (3, 1, 4):
                assert (await client.classify(b"best=%d" % class_id)).class_id == class_id

    run(test)


def test_a_call_that_is_cancelled_while_it_waits_for_a_connection_takes_none(
    scripted_server: Any, scripted: Any
) -> None:
    async def test() -> None:
        async with AsyncClient(HOST, scripted_server.port, max_connections=1) as client:
            first = asyncio.ensure_future(client.classify(b"wait"))
            await entered(scripted)
            waiting = [asyncio.ensure_future(client.ping()) for _ in range(3)]
            await asyncio.sleep(0)
            waiting[0].cancel()
            scripted.release.set()
            assert (await first).class_id == 0
            # Cancelled just when its turn has come, perhaps.
            waiting[1].cancel()
            await asyncio.gather(*waiting[:2], return_exceptions=True)
            await waiting[2]
            await client.ping()

    run(test)


def test_tasks_get_their_own_answers_while_others_are_cancelled_and_connections_cut(
    scripted_server: Any,
) -> None:
    """At any point of a call, and no answer ever reaches another one."""
    chance = random.Random(5)  # noqa: S311 (guards no secret)
    right, failed = [], []

    async def ask(client: AsyncClient, task: int) -> None:
        for turn in range(40):
            wanted = (task + turn) % 5
            try:
                got = await client.classify(b"best=%d" % wanted)
            except ConnectionFailedError:
                failed.append(wanted)
            else:
                assert got.class_id == wanted
                right.append(wanted)

    async def give_up(client: AsyncClient) -> None:
        for turn in range(200):
            call = asyncio.ensure_future(client.classify(b"best=%d" % (turn % 5)))
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            if turn % 20 == 0 and (open_now := scripted_server.server._connections.open()):
                chance.choice(open_now).cut_off()

    async def test() -> None:
        async with AsyncClient(HOST, scripted_server.port, max_connections=4) as client:
            await asyncio.gather(give_up(client), *(ask(client, task) for task in range(8)))
            assert len(right) + len(failed) == 320
            assert len(right) > 200
            # Nothing was lost on the way: four calls at a time still find a connection each.
            await asyncio.gather(*(client.ping() for _ in range(12)))
            assert client._pool._permits._value == 4

    run(test)


def test_connecting_can_be_cancelled_and_takes_no_longer_than_it_may() -> None:
    """A listener whose queue is full lets a connection wait."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen(0)
        address = listener.getsockname()
        with socket.create_connection(address):

            async def test() -> None:
                async with AsyncClient(*address, connect_timeout_s=0.05, retries=0) as client:
                    with pytest.raises(ConnectionFailedError, match=r"connect_timeout_s = 0\.05"):
                        await client.ping()
                    with pytest.raises(DeadlineExceededError, match="while it connected"):
                        await client.ping(timeout_s=0.02)
                    call = asyncio.ensure_future(client.ping())
                    await asyncio.sleep(0)
                    call.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await call

            # The kernel takes one more than it was told.
            with socket.socket() as second:
                second.setblocking(False)
                second.connect_ex(address)
                run(test)


def test_bytes_that_come_between_calls_end_the_connection(scripted_server: Any) -> None:
    async def test() -> None:
        with socket.create_server((HOST, 0)) as listener:

            async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                """Hand on what comes and what goes, and the first answer twice."""
                there = await asyncio.open_connection(HOST, scripted_server.port)
                while head := await reader.read(4):
                    there[1].write(head + await reader.readexactly(struct.unpack(">i", head)[0]))
                    head = await there[0].readexactly(4)
                    writer.write(head + await there[0].readexactly(struct.unpack(">i", head)[0]))
                    await writer.drain()
                    if not sent.done():
                        sent.set_result(writer)
                there[1].close()
                writer.close()

            sent: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
            server = await asyncio.start_server(answer, sock=listener)
            async with AsyncClient(*listener.getsockname()) as client:
                assert (await client.classify(b"best=2")).class_id == 2
                kept = client._pool._idle._kept[-1]
                (await sent).write(b"more")
                await asyncio.wait_for(kept.gone, TIMEOUT_S)
                assert not kept.usable()
                assert (await client.classify(b"best=3")).class_id == 3
                assert client._pool._idle._kept[-1] is not kept
            server.close()

    run(test)


def test_a_pause_before_another_try_ends_with_the_client() -> None:
    async def test() -> None:
        with socket.create_server((HOST, 0)) as listener:
            port = listener.getsockname()[1]
        client = AsyncClient(HOST, port, retries=1000)
        call = asyncio.ensure_future(client.ping())
        while not client._pool._loop:
            await asyncio.sleep(0)
        await client.close()
        with pytest.raises(ClientClosedError):
            await call

    run(test)


def test_a_client_belongs_to_one_event_loop(scripted_server: Any) -> None:
    client = AsyncClient(HOST, scripted_server.port)

    async def test() -> None:
        await client.ping()
        client._pool._idle._kept[-1].close()
        await client._pool._idle._kept[-1].gone

    run(test)

    async def other() -> None:
        with pytest.raises(ClientClosedError, match="belongs to another event loop or process"):
            await client.ping()
        await client.close()
        await client.close()
        with pytest.raises(ClientClosedError, match="is closed"):
            await client.ping()

    run(other)


def test_a_file_that_never_ends_does_not_stop_other_calls(scripted_server: Any) -> None:
    class Endless:
        """Gives what it has been given, and waits for more."""

        more = threading.Event()

        def read(self, _: int) -> bytes:
            assert self.more.wait(TIMEOUT_S)
            return b""

    async def test() -> None:
        async with AsyncClient(HOST, scripted_server.port) as client:
            endless: Any = Endless()
            waiting = asyncio.ensure_future(client.classify(endless))
            assert (await client.classify(b"best=2")).class_id == 2
            with pytest.raises(DeadlineExceededError, match="while its images were read"):
                await client.classify(endless, timeout_s=0.01)
            waiting.cancel()
            Endless.more.set()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    run(test)
