"""Locust users, in a closed and in an open loop, and what those of a process share.

Importing locust patches the sockets of the whole process: only programs of clients import this.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from itertools import count, takewhile
from pathlib import Path
from resource import RUSAGE_THREAD, getrusage
from typing import Any

import gevent
from gevent.pool import Group
from locust import User, constant, task
from thriftpy2.thrift import TException

from idl import inference
from loadtest.load.arrivals import arrivals
from loadtest.load.client_protocol import (
    LATENCIES_PER_REPORT,
    RECORDS_PER_LINE,
    ClientConfig,
    End,
    ProgressReport,
    RequestRow,
    RequestRows,
    Stop,
)
from loadtest.load.rpc import describe
from loadtest.load.wires import THRIFT, RefusedError, http_request, opener

_FIRST_BACKOFF_S = 0.05
_LONGEST_BACKOFF_S = 1.0
# Of an open loop: more than any server works on, and fewer than the descriptors of a process.
_MOST_IN_FLIGHT = 800
_STOP_TIMEOUT_S = 5.0
_DRAIN_S = 10.0
"""How long the end of an open loop waits for answers, unless --request_timeout_s is less."""

# The server answered, so the connection is in step and can be used again.
_DECLARED = (
    inference.InvalidImage,
    inference.InvalidRequest,
    inference.Overloaded,
    inference.DeadlineExceeded,
    inference.InternalError,
    RefusedError,
)


class LoopClock:
    """When the replies that this process handles just now came in, as far as it can know.

    One Python loop serves all connections of a process. It asks the kernel which have data, and
    handles them one after the other; what comes meanwhile lies unread until it asks again.

    Attributes:
        ready_s: a reply that is handled now was not there before then.
    """

    def __init__(self) -> None:
        loop: Any = gevent.get_hub().loop
        self.ready_s = self._asked_s = time.perf_counter()
        self._sleeps = _sleeps()
        # After the loop's own, which runs what needs no connection.
        self._before = loop.prepare(ref=False, priority=loop.MINPRI)
        self._after = loop.check(ref=False)
        self._before.start(self._ask)
        self._after.start(self._answer)

    def _ask(self) -> None:
        self._sleeps = _sleeps()

    def _answer(self) -> None:
        now_s = time.perf_counter()
        # Where the kernel let the loop wait, there was nothing before. Losing its core to another
        # process makes it late, too, and is no waiting.
        self.ready_s = now_s if _sleeps() > self._sleeps else self._asked_s
        self._asked_s = now_s


def _sleeps() -> int:
    """How often this thread has waited for something by now."""
    return getrusage(RUSAGE_THREAD).ru_nvcsw


class Caller:
    """One connection, with one request in flight.

    Args:
        load: what the callers of this process share.
        uuid_prefix: what its requests' ids begin with.
    """

    def __init__(self, load: Load, uuid_prefix: str) -> None:
        self._load = load
        self._uuid_prefix = uuid_prefix
        self._sent = 0
        self._client: Any = None
        self._backoff_s = _FIRST_BACKOFF_S

    def call(self, images: list[int], due_s: float | None = None) -> float:
        """Send one request and keep its raw latency, which Locust's own statistics would round.

        Args:
            images: indexes of its images.
            due_s: when it was to be sent, from which its latency counts; None for now, once there
                is a connection.

        Returns:
            Seconds to wait before the next request.
        """
        load, to = self._load, self._load.config.load
        lag_ms = 0.0 if due_s is None else (time.perf_counter() - due_s) * 1000
        batch = len(images)
        self._sent += 1
        requests = load.requests(images, f"{self._uuid_prefix}{self._sent}")
        pause_s, failed = 0.0, batch
        started_s = time.perf_counter()
        try:
            if self._client is None:
                self._client = load.open(to.host, to.port, to.request_timeout_s)
                started_s = time.perf_counter()
            if batch == 1:
                results = [self._client.infer_batch(requests[0])]
            else:
                results = self._client.infer_images(requests, None)
            completed_s = time.perf_counter()
            lag_ms += (completed_s - max(load.loop.ready_s, started_s)) * 1000
            failed, error = load.check(images, results)
            load.connection_failures = 0
            self._backoff_s = _FIRST_BACKOFF_S
        except _DECLARED as declared:
            completed_s, error = time.perf_counter(), describe(declared)
            load.connection_failures = 0
            if isinstance(declared, inference.Overloaded):
                pause_s = declared.retry_after_ms / 1000
        except (TException, OSError, EOFError, ValueError, LookupError, TypeError) as lost:
            # A broken or late reply must never be read as the answer to the next call.
            completed_s, error = time.perf_counter(), describe(lost)
            load.connection_failures += 1
            self.close()
            pause_s, self._backoff_s = self._backoff_s, min(2 * self._backoff_s, _LONGEST_BACKOFF_S)
        latency_ms = (completed_s - (started_s if due_s is None else due_s)) * 1000
        load.keep(RequestRow(completed_s, latency_ms, images, failed, error, lag_ms))
        return pause_s

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None


class ClosedLoopUser(User):
    """One closed-loop client: one connection, one request at a time, no pause between them."""

    wait_time = constant(0)

    def on_start(self) -> None:
        """Take the next user number, which decides the order of the images."""
        load: Load = self.environment.load
        number = load.next_user_number()
        self.picks = load.image_order(number)
        self.batch = load.config.load.request_batch
        self.caller = Caller(load, f"{number}-")

    def on_stop(self) -> None:
        """Close the connection."""
        self.caller.close()

    @task
    def classify(self) -> None:
        """Send one request, and wait as long as its reply says."""
        if pause_s := self.caller.call([next(self.picks) for _ in range(self.batch)]):
            gevent.sleep(pause_s)


class OpenLoopUser(User):
    """Sends requests at given times, each on a connection that is free or new.

    Latencies count from the time at which a request was to be sent, so that a client that has
    fallen behind hides nothing; how far it was behind is a figure of its own.
    """

    wait_time = constant(0)

    def on_start(self) -> None:
        """Take the next user number, which decides images and times."""
        self.load: Load = self.environment.load
        to, number = self.load.config.load, self.load.next_user_number()
        self.picks = self.load.image_order(number)
        rate_per_s, users = to.arrivals_per_s or 0.0, to.request_client
        # Generators of several machines make one stream on the clock that they have in common.
        planned = arrivals(to.arrivals, rate_per_s, self.load.now_s(), number, users, to.seed)
        offset_s = self.load.config.clock_offset_s
        self.due = (due_s + offset_s for due_s in planned)
        self.batch = to.request_batch
        self.uuid_prefix = f"{number}-"
        self.free: list[Caller] = []
        self.calls: Any = Group()
        self.in_flight: dict[Caller, tuple[list[int], float]] = {}
        self.opened = 0

    def on_stop(self) -> None:
        """Wait for what is in flight; what takes too long is a request without an answer."""
        for due_s in takewhile(lambda due_s: due_s <= self.load.end_s, self.due):
            self._give_up(self._next_images(), due_s, "not sent: the load generator was too slow")
        self.calls.join(min(_DRAIN_S, self.load.config.load.request_timeout_s))
        for images, due_s in self.in_flight.values():
            self._give_up(images, due_s, "unanswered when the load had ended", is_sent=True)
        self.calls.kill(block=False)
        for caller in self.free:
            caller.close()

    @task
    def arrive(self) -> None:
        """Wait for the next time, and send."""
        due_s = next(self.due)
        if (early_s := due_s - time.perf_counter()) > 0:
            gevent.sleep(early_s)
        images = self._next_images()
        if len(self.calls) >= _MOST_IN_FLIGHT:
            error = f"not sent: {_MOST_IN_FLIGHT} requests of this client process are in flight"
            self._give_up(images, due_s, error)
            return
        self.calls.spawn(self._send, images, due_s)

    def _next_images(self) -> list[int]:
        return [next(self.picks) for _ in range(self.batch)]

    def _give_up(
        self, images: list[int], due_s: float, error: str, *, is_sent: bool = False
    ) -> None:
        """Keep a request that has no answer; one that was not sent is the generator's fault."""
        now_s = time.perf_counter()
        late_ms = (now_s - due_s) * 1000
        lag_ms = 0.0 if is_sent else late_ms
        self.load.keep(RequestRow(now_s, late_ms, images, len(images), error, lag_ms))

    def _send(self, images: list[int], due_s: float) -> None:
        if self.free:
            caller = self.free.pop()
        else:
            self.opened += 1
            caller = Caller(self.load, f"{self.uuid_prefix}{self.opened}-")
        self.in_flight[caller] = images, due_s
        try:
            caller.call(images, due_s)
        except gevent.GreenletExit:
            caller.close()
            return
        del self.in_flight[caller]
        self.free.append(caller)


def stop_timeout_s(*, is_open: bool) -> float:
    """How long the end of a load waits for its users."""
    return _STOP_TIMEOUT_S + (_DRAIN_S if is_open else 0.0)


class Load:
    """What the users of this process share.

    Attributes:
        open: opens a connection: called with host, port and timeout in seconds.
        loop: tells how long replies lay unread.
        rows: all requests so far.
        failed_requests: how many of them have an error.
        connection_failures: since the last answer.
        last_error: of the last failed request.
        end_s: of an open loop's window, once it is known, on the process's own clock.
    """

    def __init__(self, config: ClientConfig) -> None:
        self.config = config
        self.end_s = 0.0
        self.loop = LoopClock()
        self.rows: list[RequestRow] = []
        self.failed_requests = self.connection_failures = 0
        self.last_error = ""
        wire = config.load.wire
        self.open = opener(wire)
        data = [Path(path).read_bytes() for path in config.image_paths]
        self._is_thrift = wire == THRIFT
        self._data = data if self._is_thrift else [http_request(wire, image) for image in data]
        self._numbers = count(config.first_user, config.user_step)
        self._told = 0

    def keep(self, row: RequestRow) -> None:
        """Add a request."""
        self.rows.append(row)
        if row.error:
            self.failed_requests += 1
            self.last_error = row.error

    def progress(self, users: int) -> ProgressReport:
        """How far it is, with some of the latencies since the last report."""
        told, self._told = self._told, len(self.rows)
        return ProgressReport(
            at_s=self.now_s(),
            cpu_s=time.process_time(),
            users=users,
            completed=self._told,
            failed=self.failed_requests,
            connection_failures=self.connection_failures,
            last_error=self.last_error,
            recent_ms=self._some_latencies_ms(told, LATENCIES_PER_REPORT),
        )

    def _some_latencies_ms(self, first: int, most: int) -> list[float]:
        """Evenly picked latencies of requests from the row with that number on, if answered."""
        rows = self.rows[first:]
        picked = rows[:: -(-len(rows) // most) or 1]
        return [round(row.latency_ms, 2) for row in picked if not row.error]

    def now_s(self) -> float:
        """The time on the clock that messages are of."""
        return time.perf_counter() - self.config.clock_offset_s

    def end_at(self, end_s: float) -> None:
        """What was to be sent by then, or by now, belongs to the load; later requests do not."""
        self.end_s = min(end_s, self.now_s()) + self.config.clock_offset_s

    def window(self, stop: Stop) -> Iterator[RequestRows | End]:
        """The window's requests, in messages, on the clock that messages are of."""
        offset_s = self.config.clock_offset_s
        rows = [row._replace(completed_s=row.completed_s - offset_s) for row in self.rows]
        is_open = self.config.load.arrivals_per_s is not None
        kept = [row for row in rows if stop.takes(row, is_open=is_open)]
        for start in range(0, len(kept), RECORDS_PER_LINE):
            yield RequestRows(kept[start : start + RECORDS_PER_LINE])
        yield End(stop.right_images(rows))

    def next_user_number(self) -> int:
        """A number that no other user of any process has."""
        return next(self._numbers)

    def image_order(self, user: int) -> Iterator[int]:
        """Endless image indexes: shuffled passes over all images, the same for the same seed."""
        generator = random.Random(f"{self.config.load.seed}/{user}")  # noqa: S311 (guards no secret)
        order = list(range(len(self._data)))
        while True:
            generator.shuffle(order)
            yield from order

    def requests(self, images: list[int], uuid: str) -> list[Any]:
        """What a client of the wire takes for these images."""
        if not self._is_thrift:
            return [self._data[image] for image in images]
        return [
            inference.InferenceParams(uuid=f"{uuid}-{position}", data=self._data[image])
            for position, image in enumerate(images)
        ]

    def check(self, images: list[int], results: list[Any]) -> tuple[int, str]:
        """How many images of a reply have no right answer, and what the first of them has."""
        if len(results) != len(images):
            return len(images), f"{len(results)} results for {len(images)} images"
        failures = []
        for image, result in zip(images, results, strict=True):
            expected = self.config.expected_labels[image]
            if result.error is not None:
                code = inference.ErrorCode._VALUES_TO_NAMES.get(result.error.code, "unknown code")
                failures.append(f"{code}: {result.error.message}")
            elif expected is not None and result.label != expected:
                failures.append(f"wrong label {result.label!r}, alone it gets {expected!r}")
        return len(failures), failures[0] if failures else ""
