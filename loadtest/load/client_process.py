"""Locust users in a process of their own: `python -m loadtest.load.client_process`.

Importing locust patches the sockets of the whole process, so nothing else imports this module.
The parent writes a `ClientConfig`, which is answered by `Loaded`, then `Start`, and at the end
`Stop`. This process answers with a `ProgressReport` every 0.2 s and, after `Stop`, with
`RequestRows` of what completed within the window and `End`. Then it is ready for the next
`ClientConfig`, because importing locust takes longer than a short window.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, TypeVar

import gevent
from gevent.fileobject import FileObject
from gevent.pool import Group
from locust import User, constant, task
from locust.env import Environment
from thriftpy2.thrift import TException

from idl import inference
from interfaces.messages import from_json, to_json
from loadtest.load.client_protocol import (
    PROGRESS_INTERVAL_S,
    RECORDS_PER_LINE,
    ClientConfig,
    End,
    Loaded,
    ProgressReport,
    RequestRow,
    RequestRows,
    Start,
    Stop,
)
from loadtest.load.rpc import describe
from loadtest.load.wires import THRIFT, RefusedError, http_request, opener

_FIRST_BACKOFF_S = 0.05
_LONGEST_BACKOFF_S = 1.0
_STOP_TIMEOUT_S = 5.0
# Of an open loop: more than any server works on, and fewer than the descriptors of a process.
_MOST_IN_FLIGHT = 800

_Message = TypeVar("_Message", bound="ClientConfig | Start | Stop")

# The server answered, so the connection is in step and can be used again.
_DECLARED = (
    inference.InvalidImage,
    inference.InvalidRequest,
    inference.Overloaded,
    inference.DeadlineExceeded,
    inference.InternalError,
    RefusedError,
)


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
        load.keep(RequestRow(completed_s, latency_ms, images, failed, error))
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
    """Sends requests at random times (Poisson), each on a connection that is free or new.

    Latencies count from the time at which a request was to be sent, so that a client that has
    fallen behind hides nothing.
    """

    wait_time = constant(0)

    def on_start(self) -> None:
        """Take the next user number, which decides images and times."""
        self.load: Load = self.environment.load
        to, number = self.load.config.load, self.load.next_user_number()
        self.picks = self.load.image_order(number)
        self.random = random.Random(f"{to.seed}/{number}/arrivals")  # noqa: S311 (guards no secret)
        self.rate_per_s = (to.arrivals_per_s or 0.0) / to.request_client
        self.uuid_prefix = f"{number}-"
        self.free: list[Caller] = []
        self.calls: Any = Group()
        self.opened = 0
        self.due_s = time.perf_counter()

    def on_stop(self) -> None:
        """Give up what is in flight."""
        self.calls.kill(block=False)
        for caller in self.free:
            caller.close()

    @task
    def arrive(self) -> None:
        """Wait for the next time, and send."""
        self.due_s += self.random.expovariate(self.rate_per_s)
        if (early_s := self.due_s - time.perf_counter()) > 0:
            gevent.sleep(early_s)
        image = next(self.picks)
        if len(self.calls) >= _MOST_IN_FLIGHT:
            now_s = time.perf_counter()
            error = f"not sent: {_MOST_IN_FLIGHT} requests of this client process are in flight"
            self.load.keep(RequestRow(now_s, (now_s - self.due_s) * 1000, [image], 1, error))
            return
        self.calls.spawn(self._send, image, self.due_s)

    def _send(self, image: int, due_s: float) -> None:
        if self.free:
            caller = self.free.pop()
        else:
            self.opened += 1
            caller = Caller(self.load, f"{self.uuid_prefix}{self.opened}-")
        try:
            caller.call([image], due_s)
        except gevent.GreenletExit:
            caller.close()
            return
        self.free.append(caller)


class Load:
    """What the users of this process share.

    Attributes:
        open: opens a connection: called with host, port and timeout in seconds.
        rows: all requests so far.
        failed_requests: how many of them have an error.
        connection_failures: since the last answer.
        last_error: of the last failed request.
    """

    def __init__(self, config: ClientConfig) -> None:
        self.config = config
        self.rows: list[RequestRow] = []
        self.failed_requests = self.connection_failures = 0
        self.last_error = ""
        wire = config.load.wire
        self.open = opener(wire)
        data = [Path(path).read_bytes() for path in config.image_paths]
        self._is_thrift = wire == THRIFT
        self._data = data if self._is_thrift else [http_request(wire, image) for image in data]
        self._numbers = iter(range(config.first_user, config.first_user + config.users))

    def keep(self, row: RequestRow) -> None:
        """Add a request."""
        self.rows.append(row)
        if row.error:
            self.failed_requests += 1
            self.last_error = row.error

    def next_user_number(self) -> int:
        """A number that no other user of any process has."""
        return next(self._numbers)

    def image_order(self, user: int) -> Iterator[int]:
        """Image indexes for ever: shuffled passes over all images, the same for the same seed."""
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


def _emit(channel: TextIO, message: Loaded | ProgressReport | RequestRows | End) -> None:
    channel.write(to_json(message) + "\n")
    channel.flush()


def _receive(commands: Any, kind: type[_Message]) -> _Message | None:
    """The next message of the parent, which must be of this kind; None where the parent is gone."""
    line = commands.readline()
    if not line:
        return None
    message: _Message = from_json(line, [kind])
    return message


def main() -> None:
    """Serve one parent: load after load, until it closes the pipe."""
    # Whatever a library prints must not get between the events.
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    commands = FileObject(sys.stdin.fileno(), "r", closefd=False)
    while config := _receive(commands, ClientConfig):
        if not _serve(config, commands, channel):
            return


def _serve(config: ClientConfig, commands: Any, channel: TextIO) -> bool:
    """One load, from `Start` to `End`; False where the parent is gone."""
    user = ClosedLoopUser if config.load.arrivals_per_s is None else OpenLoopUser
    # A fault in a user must end this process, with its message, and not be counted as load.
    environment: Any = Environment(
        user_classes=[user], stop_timeout=_STOP_TIMEOUT_S, catch_exceptions=False
    )
    environment.load = load = Load(config)
    runner = environment.create_local_runner()
    _emit(channel, Loaded())

    if _receive(commands, Start) is None:
        return False

    def report_progress() -> None:
        while True:
            _emit(
                channel,
                ProgressReport(
                    at_s=time.perf_counter(),
                    users=runner.user_count,
                    completed=len(load.rows),
                    failed=load.failed_requests,
                    connection_failures=load.connection_failures,
                    last_error=load.last_error,
                ),
            )
            gevent.sleep(PROGRESS_INTERVAL_S)

    runner.start(config.users, spawn_rate=config.users)
    reporter = gevent.spawn(report_progress)
    stop = _receive(commands, Stop)
    runner.quit()
    reporter.kill()
    if stop is None:
        return False
    kept = [row for row in load.rows if stop.start_s <= row.completed_s <= stop.end_s]
    for start in range(0, len(kept), RECORDS_PER_LINE):
        _emit(channel, RequestRows(kept[start : start + RECORDS_PER_LINE]))
    _emit(channel, End())
    return True


if __name__ == "__main__":
    main()
