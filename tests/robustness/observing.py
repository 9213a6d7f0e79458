"""`observing`: the CPU time that counting takes of a request, by itself and in a server."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from thriftpy2.rpc import make_client

from idl import inference
from loadtest.progress import Progress
from loadtest.records.run import Check, new_run
from loadtest.servers.server_process import ServerProcess, require_free_port, service_command
from service.call_counts import OK, CallCounts
from tests.robustness.regression import ROOT, checkout, in_tree
from tests.robustness.results import finish

MOST_US = 10.0
"""Of CPU time, for all that observes a request."""
COLUMNS = ("pair", "alone_us", "this_us", "other_us")
_HOST = "127.0.0.1"
_TIMEOUT_S = 60.0
_WARM_UP = 200
# As of an image that goes through two nodes.
_STAGES = {"cpu.queue": 0.05, "cpu.forward": 2.1, "cnn.queue": 1.3, "cnn.forward": 14.2}


@dataclass(frozen=True)
class ObservingSettings:
    """What `observing` does; attributes are the options of the same name."""

    against: str
    pairs: int
    requests: int
    port: int


def observing(settings: ObservingSettings, folder: Path, command: str, progress: Progress) -> None:
    """Measure and write the results.

    Raises:
        LoadTestError: git knows no such commit, a server does not start, or it takes too long.
    """
    run = new_run("observing", command, asdict(settings))
    rows: list[tuple[int, float, float, float]] = []
    with checkout(settings.against) as old, ExitStack() as running:
        sides = [
            running.enter_context(_null_server(tree, settings.port + number))
            for number, tree in enumerate((ROOT, old))
        ]
        for side in sides:
            side(_WARM_UP)
        for pair in range(settings.pairs):
            figures = [0.0, 0.0]
            alone_us = _counting_us(settings.requests)
            # Each side is first as often as second.
            for number in (0, 1) if pair % 2 == 0 else (1, 0):
                figures[number] = sides[number](settings.requests)
            this_us, other_us = figures
            rows.append((pair + 1, alone_us, this_us, other_us))
            progress.line(f"{alone_us:.2f}, {this_us:.1f} and {other_us:.1f} us a request")
    finish(run, folder, _checks(rows), {}, {"pairs": (COLUMNS, rows)})


def _checks(rows: list[tuple[int, float, float, float]]) -> list[Check]:
    alone = [row[1] for row in rows]
    more = [row[2] - row[3] for row in rows]
    return [
        _check("counting a request of one image by itself", alone),
        _check("a request to the null handler, more than at the other commit", more),
    ]


def _check(name: str, values_us: list[float]) -> Check:
    median_us = statistics.median(values_us)
    spread = f"median of {len(values_us)}; {min(values_us):.2f} to {max(values_us):.2f}"
    return Check(
        f"{name}: CPU time",
        f"at most {MOST_US:g} us",
        f"{median_us:.2f} us ({spread})",
        median_us <= MOST_US,
    )


def _counting_us(requests: int) -> float:
    """CPU time of all that is done to count a request of one image."""
    counts = CallCounts()
    began_s = time.thread_time()
    for _ in range(requests):
        call_began_s = time.monotonic()
        counts.image_done(OK, _STAGES)
        counts.call_done("infer_images", OK, time.monotonic() - call_began_s)
    return (time.thread_time() - began_s) / requests * 1e6


@contextmanager
def _null_server(tree: Path, port: int) -> Iterator[Callable[[int], float]]:
    """A function that sends so many requests: CPU time of the server for each, in us."""
    require_free_port(_HOST, port)
    arguments = ["--handler", "null", "--workers", "1"]
    command = in_tree(tree, service_command(arguments, _HOST, port))
    with ServerProcess(command, f"the server of {tree}", _TIMEOUT_S) as server:
        server.wait_ready()
        client = make_client(inference.InferenceService, _HOST, port)
        request = [inference.InferenceParams("u", b"no image")]
        # The kernel's clock of the CPU time of that process.
        clock = (~client.server_info().pid << 3) | 2

        def measure(requests: int) -> float:
            began_s = time.clock_gettime(clock)
            for _ in range(requests):
                client.infer_images(request)
            return (time.clock_gettime(clock) - began_s) / requests * 1e6

        yield measure
        client.close()
        server.stop()
