"""Users for Locust's own command: `locust -f loadtest/locustfile.py --host 127.0.0.1:8095`.

They are the clients of `python -m loadtest`, with Locust's web page, its report (`--headless
--html FILE`) and its distributed mode around them. A file of one's own may subclass
`ClassifyUser`. Locust rounds latencies to two digits; `python -m loadtest run` keeps them raw.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import gevent
from gevent.lock import BoundedSemaphore
from locust import User, constant, events, task
from locust.exception import StopUser

from interfaces.service import PORT
from loadtest.errors import LoadTestError
from loadtest.load import users
from loadtest.load.client_protocol import ClientConfig, RequestRow
from loadtest.load.images import default_images, read_folder
from loadtest.load.rpc import address_of
from loadtest.settings import LoadSettings

_MOST_USERS = 10**9
_making_load = BoundedSemaphore()


class ClassifyUser(User):
    """One closed-loop client: one connection, one request at a time.

    Subclasses may set `wait_time`, such as `constant_throughput(5)`, and `host`.
    """

    wait_time = constant(0)
    host = f"localhost:{PORT}"
    _caller: users.Caller | None = None

    def on_start(self) -> None:
        """Take the next user number, which decides the order of the images."""
        if (load := _load_of(self.environment, self.host)) is None:
            return
        number = load.next_user_number()
        self._picks = load.image_order(number)
        self._batch = load.config.load.request_batch
        self._caller = users.Caller(load, f"{number}-")

    def on_stop(self) -> None:
        """Close the connection; a user that could not start has none."""
        if self._caller is not None:
            self._caller.close()

    @task
    def classify(self) -> None:
        """Send the next images, and wait as long as the reply says."""
        if self._caller is None:
            raise StopUser
        if pause_s := self._caller.call([next(self._picks) for _ in range(self._batch)]):
            gevent.sleep(pause_s)


class _ReportedLoad(users.Load):
    """What the users share, whose requests Locust counts."""

    def __init__(self, config: ClientConfig, environment: Any) -> None:
        super().__init__(config)
        self._environment = environment
        self._name = "infer_batch" if config.load.request_batch == 1 else "infer_images"

    def keep(self, row: RequestRow) -> None:
        """Tell Locust of a request."""
        self._environment.events.request.fire(
            request_type="thrift",
            name=self._name,
            response_time=row.latency_ms,
            response_length=0,
            exception=LoadTestError(row.error) if row.error else None,
            context={},
        )


def _load_of(environment: Any, host: str) -> _ReportedLoad | None:
    """What users of a host share in the test that runs; the first of them makes it.

    Not the start of the program: the web page may change host and options. None where they are
    of no use, which its page of exceptions tells.
    """
    loads: dict[str, _ReportedLoad] = environment.classify_loads
    with _making_load:
        if host not in loads:
            try:
                loads[host] = _new_load(environment, host)
            except LoadTestError as error:
                environment.runner.log_exception("local", str(error), "")
                return None
        return loads[host]


def _new_load(environment: Any, host: str) -> _ReportedLoad:
    options = environment.parsed_options
    name, port = address_of(host)
    # What is left out of a folder was told at the start.
    folder = Path(options.img_dir)
    images = read_folder(folder, tell=lambda _: None) if options.img_dir else default_images()
    config = ClientConfig(
        load=LoadSettings(
            host=name,
            port=port,
            request_batch=options.request_batch,
            request_timeout_s=options.request_timeout_s,
        ),
        image_paths=[str(image.path) for image in images],
        expected_labels=[None] * len(images),
        users=_MOST_USERS,
        first_user=0,
    )
    return _ReportedLoad(config, environment)


def _add_options(parser: Any, **_: Any) -> None:
    group = parser.add_argument_group("thriftpipe")
    group.add_argument("--img-dir", default="", help="folder of images (the photo set)")
    group.add_argument("--request-batch", type=int, default=1, help="images in a request")
    group.add_argument("--request-timeout-s", type=float, default=30.0, help="for one reply")


def _check_at_start(environment: Any, **_: Any) -> None:
    """End a wrong command line before anything runs."""
    try:
        if environment.host:
            address_of(environment.host)
        if environment.parsed_options.request_batch < 1:
            raise LoadTestError("--request-batch must be at least 1")
        if environment.parsed_options.img_dir:
            read_folder(Path(environment.parsed_options.img_dir))
    except LoadTestError as error:
        logging.getLogger(__name__).error("%s", error)
        sys.exit(2)


def _begin_anew(environment: Any, **_: Any) -> None:
    """The web page may have changed host and options."""
    environment.classify_loads = {}


# Its methods have no types.
_hooks: Any = events
_hooks.init_command_line_parser.add_listener(_add_options)
_hooks.init.add_listener(_check_at_start)
_hooks.test_start.add_listener(_begin_anew)
