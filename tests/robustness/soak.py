"""`soak`: a mixed load for a long time, in which nothing may grow and nothing slow down."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from loadtest.errors import LoadTestError
from loadtest.progress import Progress, minutes
from loadtest.records.run import Check, Sample, new_run
from loadtest.report.tables import interval
from tests.robustness.checking_clients import LATE, REFUSED, CheckingClients, Habits, KnownImage
from tests.robustness.checks import answered, clean_exit, no_traceback, pings_answered
from tests.robustness.colour_model import LABELS, encoded, write_colour_model
from tests.robustness.drift import Quintiles, Slope, quintiles, slope
from tests.robustness.results import finish
from tests.robustness.server_under_test import USAGE_COLUMNS, ServerUnderTest, Watch
from tests.robustness.soak_plot import WARM_UP_SHARE

_WINDOWS = 300
_LEAST_WINDOW_S = 0.25
_LEAST_DURATION_S = 2.0
_SAMPLE_INTERVAL_S = 0.5
_TIMEOUT_S = 15.0
_LEAST_RATIO = 0.97
_DEADLINE_SHARE = 0.1
_DEADLINE_MS = 25
_CALLS_PER_CONNECTION = 200


@dataclass(frozen=True)
class SoakSettings:
    """What `soak` does; attributes are the options of the same name."""

    duration_s: float
    clients: int
    port: int
    seed: int


def soak(settings: SoakSettings, folder: Path, command: str, progress: Progress) -> None:
    """Run it and write the results.

    Raises:
        LoadTestError: it is too short, a promise is broken, or the server does not start.
    """
    if settings.duration_s < _LEAST_DURATION_S:
        raise LoadTestError(
            f"--duration_s {settings.duration_s:g} is too short for soak, which compares the first "
            f"fifth of its windows with the last; give it at least {_LEAST_DURATION_S:g} s"
        )
    run = new_run("soak", command, asdict(settings))
    with (
        tempfile.TemporaryDirectory(prefix="loadtest-") as temporary,
        ServerUnderTest(
            ["--handler", "pipeline", *write_colour_model(Path(temporary)).arguments()],
            settings.port,
        ) as server,
    ):
        server.wait_ready()
        clients = CheckingClients(settings.port, settings.clients, _habits(), settings.seed)
        with Watch(server, _SAMPLE_INTERVAL_S, _TIMEOUT_S) as watch, clients:
            windows = _count_windows(settings, clients, server, progress)
        alive = server.is_alive()
        exit_code = server.terminate()
    warm_up_s = WARM_UP_SHARE * settings.duration_s
    rates = [rate for start_s, rate in windows if start_s >= warm_up_s]
    # The last samples see the clients leave.
    last_s = settings.duration_s - 1
    samples = [sample for sample in watch.samples if warm_up_s <= sample.at_s <= last_s]
    if len(samples) < 2:  # a short run, or a busy machine
        samples = watch.samples
    throughput = quintiles(rates)
    memory = slope([s.at_s for s in samples], _held(samples, "rss_bytes"))
    checks = [
        *_steadiness(throughput, memory, samples),
        answered(clients.counts, (REFUSED, LATE)),
        pings_answered(watch, _TIMEOUT_S),
        clean_exit(exit_code, was_alive=alive),
        no_traceback(server),
    ]
    results = {
        "outcomes": dict(clients.counts),
        "calls": clients.calls,
        "throughput": asdict(throughput),
        "memory": asdict(memory),
        "wrongs": clients.wrongs,
        "tracebacks": server.tracebacks,
    }
    tables = {
        "throughput": (("start_s", "images_per_s"), windows),
        "usage": (USAGE_COLUMNS, watch.rows),
    }
    finish(run, folder, checks, results, tables)


def _held(samples: Sequence[Sample], name: str) -> list[float]:
    return [float(sample.values[name]) for sample in samples]


def _habits() -> Habits:
    sizes = ((64, 48), (320, 240), (640, 480), (900, 1200))
    formats = (".jpg", ".jpg", ".png", ".webp", ".bmp")
    images = [
        KnownImage(encoded(label, *size, suffix), label)
        for label in LABELS
        for size, suffix in zip((*sizes, sizes[0]), formats, strict=True)
    ]
    whole = images[1].data
    images += [KnownImage(data, None) for data in (b"no image", whole[: len(whole) // 2])]
    return Habits(
        images,
        timeout_s=_TIMEOUT_S,
        deadline_share=_DEADLINE_SHARE,
        deadline_ms=_DEADLINE_MS,
        calls_per_connection=_CALLS_PER_CONNECTION,
    )


def _count_windows(
    settings: SoakSettings, clients: CheckingClients, server: ServerUnderTest, progress: Progress
) -> list[tuple[float, float]]:
    """Start in seconds and answered images a second of consecutive windows."""
    window_s = max(_LEAST_WINDOW_S, settings.duration_s / _WINDOWS)
    windows: list[tuple[float, float]] = []
    started_s = last_s = time.monotonic()
    before = clients.counts.total()
    while last_s - started_s < settings.duration_s and server.is_alive():
        time.sleep(max(0.0, started_s + (len(windows) + 1) * window_s - time.monotonic()))
        now_s, count = time.monotonic(), clients.counts.total()
        rate = (count - before) / (now_s - last_s)
        windows.append((last_s - started_s, rate))
        last_s, before = now_s, count
        progress.update(
            f"soak {minutes(now_s - started_s)} of {minutes(settings.duration_s)}: "
            f"{count} images, {rate:.0f} a second"
        )
    progress.end_line()
    return windows


def _steadiness(throughput: Quintiles, memory: Slope, samples: Sequence[Sample]) -> list[Check]:
    mib = 3600 / 2**20
    low, high = memory.interval.low, memory.interval.high
    bounds = "" if low is None or high is None else f", 95 % {low * mib:+.2f} to {high * mib:+.2f}"
    n = max(1, len(samples) // 5)
    early, late = samples[:n], samples[-n:]
    checks = [
        Check(
            "throughput of the last fifth over the first",
            f"at least {_LEAST_RATIO:g}",
            f"{throughput.ratio:.3f} (medians of windows {throughput.first:.0f} "
            f"{interval(throughput.first_interval, 0)} and {throughput.last:.0f} "
            f"{interval(throughput.last_interval, 0)} images a second)",
            throughput.ratio >= _LEAST_RATIO,
        ),
        Check(
            "memory does not grow",
            "slope within noise",
            f"{memory.per_s * mib:+.2f} MiB an hour{bounds}, noise {memory.noise / 2**20:.2f} MiB",
            memory.is_within_noise,
        ),
    ]
    for name in ("descriptors", "threads"):
        first, last = _held(early, name), _held(late, name)
        checks.append(
            Check(
                f"{name} do not grow",
                f"the most of the first fifth: {max(first):.0f}",
                f"the fewest of the last fifth: {min(last):.0f}, the most {max(last):.0f}",
                # Connections come and go; a leak lifts the least of them, too.
                min(last) <= max(first),
            )
        )
    return checks
