"""`soak`: a mixed load for a long time, in which nothing may grow and nothing slow down."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from loadtest.progress import Progress, minutes
from loadtest.robustness import soak_plot
from loadtest.robustness.colour_model import LABELS, encoded, write_colour_model
from loadtest.robustness.drift import Fifths, Slope, fifths, slope
from loadtest.robustness.promises import Promise, RunRecord, table
from loadtest.robustness.server_under_test import ServerUnderTest, Usage, Watch
from loadtest.robustness.well_behaved import (
    HUNG,
    LOST,
    RIGHT,
    WRONG,
    Habits,
    KnownImage,
    WellBehaved,
)
from loadtest.statistics import Interval

_WARM_UP_SHARE = 0.1
_WINDOWS = 300
_LEAST_WINDOW_S = 0.25
_SAMPLE_INTERVAL_S = 0.5
_TIMEOUT_S = 15.0
_LEAST_RATIO = 0.97
_DEADLINE_SHARE = 0.1
_DEADLINE_MS = 25
_CALLS_PER_CONNECTION = 200


@dataclass(frozen=True)
class SoakSettings:
    """What `soak` does.

    Attributes:
        duration_s: length of the load.
        clients: closed-loop clients.
        port: for the server.
        seed: decides what they send.
    """

    duration_s: float
    clients: int
    port: int
    seed: int


def soak(settings: SoakSettings, folder: Path, command: str, progress: Progress) -> None:
    """Run it and write the results.

    Raises:
        LoadTestError: a promise is broken, or the server does not start.
    """
    record = RunRecord("soak", folder, command, asdict(settings))
    with (
        tempfile.TemporaryDirectory(prefix="loadtest-") as temporary,
        ServerUnderTest(
            ["--handler", "pipeline", *write_colour_model(Path(temporary)).arguments()],
            settings.port,
        ) as server,
    ):
        server.wait_ready()
        clients = WellBehaved(settings.port, settings.clients, _habits(), settings.seed)
        with Watch(server, _SAMPLE_INTERVAL_S, _TIMEOUT_S) as watch, clients:
            windows = _count_windows(settings, clients, server, progress)
        alive = server.is_alive()
        exit_code = server.stop()
    warm_up_s = _WARM_UP_SHARE * settings.duration_s
    rates = [rate for start_s, rate in windows if start_s >= warm_up_s]
    samples = [sample for sample in watch.samples if warm_up_s <= sample.at_s]
    # The last samples see the clients leave.
    samples = [sample for sample in samples if sample.at_s <= settings.duration_s - 1] or samples
    throughput = fifths(rates)
    memory = slope([s.at_s for s in samples], [float(s.rss_bytes) for s in samples])
    promises = [
        *_steadiness(throughput, memory, samples),
        *_correctness(clients, watch, server, alive, exit_code),
    ]
    record.write_rows("throughput", ("start_s", "images_per_s"), windows)
    record.write_rows(
        "usage",
        ("at_s", "rss_bytes", "descriptors", "threads", "processes"),
        [tuple(asdict(sample).values()) for sample in watch.samples],
    )
    soak_plot.draw(folder, windows, watch.samples, warm_up_s, memory)
    outcomes = sorted(clients.counts.items(), key=lambda pair: -pair[1])
    sections = [
        f"![throughput and memory over time]({soak_plot.PLOT_FILE})\n",
        "## Outcomes, by image\n",
        table(("outcome", "images"), outcomes),
        *(f"\n- WRONG: {wrong}" for wrong in clients.wrongs),
    ]
    facts = {
        "outcomes": dict(clients.counts),
        "calls": clients.calls,
        "throughput": asdict(throughput),
        "memory": asdict(memory),
    }
    record.finish(promises, sections, facts)


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
    settings: SoakSettings, clients: WellBehaved, server: ServerUnderTest, progress: Progress
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


def _steadiness(throughput: Fifths, memory: Slope, samples: Sequence[Usage]) -> list[Promise]:
    mb = 3600 / 2**20
    low, high = memory.interval.low, memory.interval.high
    bounds = "" if low is None or high is None else f", 95 % {low * mb:+.2f} to {high * mb:+.2f}"
    n = max(1, len(samples) // 5)
    early, late = samples[:n], samples[-n:]
    promises = [
        Promise(
            "throughput of the last fifth over the first",
            f"at least {_LEAST_RATIO:g}",
            f"{throughput.ratio:.3f} (medians of windows {throughput.first:.0f} "
            f"{_interval(throughput.first_interval)} and {throughput.last:.0f} "
            f"{_interval(throughput.last_interval)} images a second)",
            throughput.ratio >= _LEAST_RATIO,
        ),
        Promise(
            "memory does not grow",
            "slope within noise",
            f"{memory.per_s * mb:+.2f} MB an hour{bounds}, noise {memory.noise / 2**20:.2f} MB",
            memory.is_within_noise,
        ),
    ]
    for name, first, last in (
        (
            "descriptors",
            [sample.descriptors for sample in early],
            [sample.descriptors for sample in late],
        ),
        ("threads", [sample.threads for sample in early], [sample.threads for sample in late]),
    ):
        promises.append(
            Promise(
                f"{name} do not grow",
                f"the most of the first fifth: {max(first)}",
                f"the fewest of the last fifth: {min(last)}, the most {max(last)}",
                # Connections come and go; a leak lifts the least of them, too.
                min(last) <= max(first),
            )
        )
    return promises


def _interval(bounds: Interval) -> str:
    if bounds.low is None or bounds.high is None:
        return "(too few windows for an interval)"
    return f"[{bounds.low:.0f}, {bounds.high:.0f}]"


def _correctness(
    clients: WellBehaved, watch: Watch, server: ServerUnderTest, alive: bool, exit_code: int
) -> list[Promise]:
    counts = clients.counts
    broken = {name: counts[name] for name in (WRONG, HUNG, LOST, "internal") if counts[name]}
    slowest_s = max(watch.pings, default=float("inf"))
    return [
        Promise(
            "every request is answered once, rightly or with a declared error",
            "none else",
            f"{counts.total()} images, " + (str(broken) if broken else "none else"),
            not broken and counts[RIGHT] > 0,
        ),
        Promise(
            "pings are answered",
            f"{_TIMEOUT_S:g} s",
            f"{len(watch.pings)} pings, the slowest {slowest_s:.3f} s, "
            f"{len(watch.failures)} failures",
            slowest_s <= _TIMEOUT_S and not watch.failures,
        ),
        Promise(
            "alive to the end, then a clean exit",
            "exit code 0 after SIGTERM",
            f"exit code {exit_code}" + ("" if alive else " before SIGTERM"),
            alive and exit_code == 0,
        ),
        Promise("no traceback in the log", "0", str(len(server.tracebacks)), not server.tracebacks),
    ]
