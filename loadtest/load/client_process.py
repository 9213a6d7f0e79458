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
from loadtest.load.rpc import describe, open_client

_FIRST_BACKOFF_S = 0.05
_LONGEST_BACKOFF_S = 1.0
_STOP_TIMEOUT_S = 5.0

_Message = TypeVar("_Message", bound="ClientConfig | Start | Stop")

# The server answered, so the connection is in step and can be used again.
_DECLARED = (
    inference.InvalidImage,
    inference.InvalidRequest,
    inference.Overloaded,
    inference.DeadlineExceeded,
    inference.InternalError,
)


class ThriftUser(User):
    """One closed-loop client: one connection, one request at a time, no pause between them."""

    wait_time = constant(0)

    def on_start(self) -> None:
        """Take the next user number, which decides the order of the images."""
        load: Load = self.environment.load
        self.load = load
        number = load.next_user_number()
        self.picks = load.image_order(number)
        self.uuid_prefix = f"{number}-"
        self.sent = 0
        self.client: Any = None
        self.backoff_s = _FIRST_BACKOFF_S

    def on_stop(self) -> None:
        """Close the connection."""
        self._disconnect()

    @task
    def classify(self) -> None:
        """Send one request and keep its raw latency, which Locust's own statistics would round."""
        load, to = self.load, self.load.config.load
        batch = to.request_batch
        images = [next(self.picks) for _ in range(batch)]
        self.sent += 1
        requests = [
            inference.InferenceParams(
                uuid=f"{self.uuid_prefix}{self.sent}-{position}", data=load.data[image]
            )
            for position, image in enumerate(images)
        ]
        pause_s, failed = 0.0, batch
        started_s = time.perf_counter()
        try:
            if self.client is None:
                self.client = open_client(to.host, to.port, to.request_timeout_s)
                started_s = time.perf_counter()
            if batch == 1:
                results = [self.client.infer_batch(requests[0])]
            else:
                results = self.client.infer_images(requests, None)
            completed_s = time.perf_counter()
            failed, error = load.check(images, results)
            load.connection_failures = 0
            self.backoff_s = _FIRST_BACKOFF_S
        except _DECLARED as declared:
            completed_s, error = time.perf_counter(), describe(declared)
            load.connection_failures = 0
            if isinstance(declared, inference.Overloaded):
                pause_s = declared.retry_after_ms / 1000
        except (TException, OSError, EOFError, ValueError, LookupError, TypeError) as lost:
            # A broken or late reply must never be read as the answer to the next call.
            completed_s, error = time.perf_counter(), describe(lost)
            load.connection_failures += 1
            self._disconnect()
            pause_s, self.backoff_s = self.backoff_s, min(2 * self.backoff_s, _LONGEST_BACKOFF_S)
        latency_ms = (completed_s - started_s) * 1000
        load.keep(RequestRow(completed_s, latency_ms, images, failed, error))
        if pause_s:
            gevent.sleep(pause_s)

    def _disconnect(self) -> None:
        if self.client is not None:
            self.client.close()
            self.client = None


class Load:
    """What the users of this process share.

    Attributes:
        data: the images.
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
        self.data = [Path(path).read_bytes() for path in config.image_paths]
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
        order = list(range(len(self.data)))
        while True:
            generator.shuffle(order)
            yield from order

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
    # A fault in a user must end this process, with its message, and not be counted as load.
    environment: Any = Environment(
        user_classes=[ThriftUser], stop_timeout=_STOP_TIMEOUT_S, catch_exceptions=False
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
