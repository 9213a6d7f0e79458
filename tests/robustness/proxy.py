"""A TCP proxy that is a bad network: it delays, trickles, cuts in the middle and resets.

The kinds of faults are those of Toxiproxy (github.com/Shopify/toxiproxy).
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections import Counter
from types import TracebackType

FAULTS = ("none", "delay", "trickle", "cut", "reset")
_CHUNK_BYTES = 16 * 1024
_TRICKLE_BYTES = 256
_LONGEST_DELAY_S = 0.05
_TRICKLE_S = 0.001
_MOST_BYTES_BEFORE_CUT = 20_000
_RESET = struct.pack("ii", 1, 0)


class BadNetwork:
    """Listens on a port of its own and passes bytes on to the server, for the context's length."""

    def __init__(self, server_port: int, seed: int) -> None:
        self._server_port = server_port
        self._random = random.Random(seed)  # noqa: S311 (guards no secret)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.counts: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="bad network", daemon=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(
            asyncio.start_server(self._serve, sock=self._listener, limit=_CHUNK_BYTES)
        )
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault = self._random.choice(FAULTS)
        self.counts[fault] += 1
        left = self._random.randint(1, _MOST_BYTES_BEFORE_CUT) if fault in FAULTS[3:] else None
        there, back = await asyncio.open_connection("127.0.0.1", self._server_port)
        ways = [
            asyncio.ensure_future(self._pass_on(source, sink, fault, left))
            for source, sink in ((reader, back), (there, writer))
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            pass  # the proxy ends, and its connections with it
        finally:
            for way in ways:
                way.cancel()
            for sink in (writer, back):
                if fault == "reset":
                    raw = sink.get_extra_info("socket")
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                sink.close()

    async def _pass_on(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, fault: str, left: int | None
    ) -> None:
        size = _TRICKLE_BYTES if fault == "trickle" else _CHUNK_BYTES
        try:
            while chunk := await source.read(size):
                if fault == "delay":
                    await asyncio.sleep(self._random.random() * _LONGEST_DELAY_S)
                elif fault == "trickle":
                    await asyncio.sleep(_TRICKLE_S)
                if left is not None:
                    chunk = chunk[:left]
                    left -= len(chunk)
                sink.write(chunk)
                await sink.drain()
                if left == 0:
                    return
        except OSError:
            return  # an end is gone, which the other one is told

    def __enter__(self) -> BadNetwork:
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._listener.close()
