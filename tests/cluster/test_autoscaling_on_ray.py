"""A steady load on a real Ray: it gets the replicas that it needs, keeps them, and loses none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from service.client import Client
from tests.cluster.needs import needs_ray
from tests.cluster_runs.paced import paced_server
from tests.robustness.colour_model import encoded
from tests.serving import service
from tests.waiting import wait_until

pytestmark = needs_ray

# One replica answers ten images a second, whatever the machine does meanwhile. The clients ask for
# 14: one alone would have them wait, two have an image in work for 0.7 of the time.
_ITEM_MS = 100
_CLIENTS = 16
_PAUSE_S = 1.0
_NEEDED, _MOST = 2, 3
_SCALE_DOWN_DELAY_S = 5
# Two replicas take 20 s for them at least. A load that is found too small is a scale-down after
# 13 s: as far back as the policy looks, until it hears of that, and the delay.
_STEADY_CALLS = 400


class SteadyLoad:
    """Clients of which each asks for one image, waits for its answer, and pauses.

    Attributes:
        answers: labels, in the order in which they came.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._image = encoded("green", 40, 30)
        self._is_over = threading.Event()
        self.answers: list[str] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Ask while the context lasts; a call that fails is raised at its end."""
        with ThreadPoolExecutor(_CLIENTS) as threads:
            clients = [threads.submit(self._ask) for _ in range(_CLIENTS)]
            try:
                yield
            finally:
                self._is_over.set()
        for one in clients:
            one.result()

    def _ask(self) -> None:
        while not self._is_over.wait(_PAUSE_S):
            self.answers.append(self._client.classify(self._image).label)


def test_a_steady_load_keeps_the_replicas_that_it_needs(tmp_path: Path) -> None:
    arguments = [*paced_server(tmp_path, _ITEM_MS), "--cluster", "local", "--min-replicas", "1"]
    arguments += ["--max-replicas", str(_MOST), "--scale-down-delay-s", str(_SCALE_DOWN_DELAY_S)]
    with (
        service(*arguments) as (port, _),
        Client(port=port, max_connections=_CLIENTS + 1, retries=0) as client,
    ):
        load = SteadyLoad(client)
        with load.running():
            wait_until(lambda: len(client.stats().workers) == _NEEDED)
            until_then = len(load.answers)
            wait_until(lambda: len(load.answers) >= until_then + _STEADY_CALLS)
            under_load = client.stats()
        # None has ended, not even to come back.
        assert under_load.worker_restarts == 0
        assert len(under_load.workers) == _NEEDED
        wait_until(lambda: len(client.stats().workers) == 1)
        assert client.stats().worker_restarts == _NEEDED - 1
        assert set(load.answers) == {"green"}
