"""Locust users in a process of their own: `python -m loadtest.client_process`.

Importing locust patches the sockets of the whole process, so nothing else imports this module.
The parent speaks JSON lines: it writes a `ClientConfig`, `{"command": "start"}`, and at the end
`{"command": "stop", "start_s": ..., "end_s": ...}`, times on the monotonic clock that all
processes of a machine share. This process answers with a `progress` event every 0.2 s and, after
`stop`, with `records` of every request that completed within the window and `end`. Then it is
ready for the next `ClientConfig`, because importing locust takes longer than a short window.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import gevent
from gevent.fileobject import FileObject
from locust import User, constant, task
from locust.env import Environment
from thriftpy2.thrift import TException

from idl import inference
from loadtest.client_protocol import PROGRESS_INTERVAL_S, RECORDS_PER_LINE, ClientConfig
from loadtest.rpc import describe, open_client

_FIRST_BACKOFF_S = 0.05
_LONGEST_BACKOFF_S = 1.0
_STOP_TIMEOUT_S = 5.0

# The server answered, so the connection is in step and can be used again.
_DECLARED = (
    inference.InvalidImage,
    inference.InvalidRequest,
    inference.Overloaded,
    inference.DeadlineExceeded,
    inference.InternalError,
)


@dataclass
class Recorder:
    """Keeps the raw values of every request; Locust's own statistics round them."""

    rows: list[tuple[float, float, list[int], int, str]] = field(default_factory=list)
    failed_requests: int = 0
    consecutive_connection_failures: int = 0
    last_error: str = ""

    def on_request(
        self,
        *,
        response_time: float,
        completed_s: float,
        images: list[int],
        failed_images: int,
        error: str,
        **_: object,
    ) -> None:
        """Listener of `environment.events.request`."""
        self.rows.append((completed_s, response_time, images, failed_images, error))
        if error:
            self.failed_requests += 1
            self.last_error = error


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
        """Send one request and fire `request` with its raw latency."""
        load = self.load
        batch = load.config.request_batch
        images = [next(self.picks) for _ in range(batch)]
        self.sent += 1
        requests = [
            inference.InferenceParams(
                uuid=f"{self.uuid_prefix}{self.sent}-{position}", data=load.data[image]
            )
            for position, image in enumerate(images)
        ]
        pause_s, failed, failure = 0.0, batch, None
        started_s = time.perf_counter()
        try:
            if self.client is None:
                self.client = open_client(
                    load.config.host, load.config.port, load.config.request_timeout_s
                )
                started_s = time.perf_counter()
            if batch == 1:
                results = [self.client.infer_batch(requests[0])]
            else:
                results = self.client.infer_images(requests, None)
            completed_s = time.perf_counter()
            failed, error = load.check(images, results)
            load.recorder.consecutive_connection_failures = 0
            self.backoff_s = _FIRST_BACKOFF_S
        except _DECLARED as declared:
            completed_s, failure, error = time.perf_counter(), declared, describe(declared)
            load.recorder.consecutive_connection_failures = 0
            if isinstance(declared, inference.Overloaded):
                pause_s = declared.retry_after_ms / 1000
        except (TException, OSError, EOFError, ValueError, LookupError, TypeError) as lost:
            # A broken or late reply must never be read as the answer to the next call.
            completed_s, failure, error = time.perf_counter(), lost, describe(lost)
            load.recorder.consecutive_connection_failures += 1
            self._disconnect()
            pause_s, self.backoff_s = self.backoff_s, min(2 * self.backoff_s, _LONGEST_BACKOFF_S)
        self.environment.events.request.fire(
            request_type="thrift",
            name="infer_batch" if batch == 1 else "infer_images",
            response_time=(completed_s - started_s) * 1000,
            response_length=0,
            exception=failure,
            context={},
            completed_s=completed_s,
            images=images,
            failed_images=failed,
            error=error,
        )
        if pause_s:
            gevent.sleep(pause_s)

    def _disconnect(self) -> None:
        if self.client is not None:
            self.client.close()
            self.client = None


class Load:
    """What the users of this process share: the images, and who has which number."""

    def __init__(self, config: ClientConfig, recorder: Recorder) -> None:
        self.config = config
        self.recorder = recorder
        self.data = [Path(path).read_bytes() for path in config.image_paths]
        self._numbers = iter(range(config.first_user, config.first_user + config.users))

    def next_user_number(self) -> int:
        """A number that no other user of any process has."""
        return next(self._numbers)

    def image_order(self, user: int) -> Iterator[int]:
        """Image indexes for ever: shuffled passes over all images, the same for the same seed."""
        generator = random.Random(f"{self.config.seed}/{user}")  # noqa: S311 (guards no secret)
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


def _emit(channel: TextIO, **event: object) -> None:
    channel.write(json.dumps(event) + "\n")
    channel.flush()


def main() -> None:
    """Serve one parent: load after load, until it closes the pipe."""
    # Whatever a library prints must not get between the events.
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    commands = FileObject(sys.stdin.fileno(), "r", closefd=False)
    while line := commands.readline():
        if not _serve(ClientConfig(**json.loads(line)), commands, channel):
            return


def _serve(config: ClientConfig, commands: Any, channel: TextIO) -> bool:
    """One load, from its start command to its records; False where the parent is gone."""
    recorder = Recorder()
    # A fault in a user must end this process, with its message, and not be counted as load.
    environment: Any = Environment(
        user_classes=[ThriftUser], stop_timeout=_STOP_TIMEOUT_S, catch_exceptions=False
    )
    environment.load = Load(config, recorder)
    environment.events.request.add_listener(recorder.on_request)
    runner = environment.create_local_runner()
    _emit(channel, event="loaded")

    if not commands.readline():
        return False

    def report_progress() -> None:
        while True:
            _emit(
                channel,
                event="progress",
                at_s=time.perf_counter(),
                users=runner.user_count,
                completed=len(recorder.rows),
                failed=recorder.failed_requests,
                connection_failures=recorder.consecutive_connection_failures,
                last_error=recorder.last_error,
            )
            gevent.sleep(PROGRESS_INTERVAL_S)

    runner.start(config.users, spawn_rate=config.users)
    reporter = gevent.spawn(report_progress)
    stop = commands.readline()
    runner.quit()
    reporter.kill()
    if not stop:
        return False
    window = json.loads(stop)
    kept = [row for row in recorder.rows if window["start_s"] <= row[0] <= window["end_s"]]
    for start in range(0, len(kept), RECORDS_PER_LINE):
        _emit(channel, event="records", rows=kept[start : start + RECORDS_PER_LINE])
    _emit(channel, event="end")
    return True


if __name__ == "__main__":
    main()
