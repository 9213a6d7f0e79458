"""`fuzz`: mutated requests and images against a live server."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from interfaces.sizes import size_text
from loadtest.errors import LoadTestError
from loadtest.progress import Progress, minutes
from loadtest.records.run import Check, Sample, new_run
from tests.robustness import wire
from tests.robustness.checks import clean_exit, no_traceback, pings_answered
from tests.robustness.colour_model import write_colour_model
from tests.robustness.fuzz_client import FuzzTask, run_client
from tests.robustness.results import finish
from tests.robustness.server_under_test import USAGE_COLUMNS, ServerUnderTest, Watch

_SAMPLE_INTERVAL_S = 0.25
_WARM_UP_SHARE = 0.1
_MOST_GROWTH_BYTES = 50 * 2**20
_MOST_PIXELS = 500_000
_GRACE_S = 30.0


@dataclass(frozen=True)
class FuzzSettings:
    """What `fuzz` does; attributes are the options of the same name."""

    requests: int | None
    duration_s: float | None
    port: int
    client_processes: int
    connections: int
    deadline_s: float
    seed: int


def fuzz(settings: FuzzSettings, folder: Path, command: str, progress: Progress) -> None:
    """Run it and write the results.

    Raises:
        LoadTestError: a promise is broken, or the server does not start.
    """
    run = new_run("fuzz", command, asdict(settings))
    with (
        tempfile.TemporaryDirectory(prefix="loadtest-") as temporary,
        ServerUnderTest(_arguments(Path(temporary)), settings.port) as server,
    ):
        server.wait_ready()
        with Watch(server, _SAMPLE_INTERVAL_S, settings.deadline_s) as watch:
            counts, failures, length_s = _send(settings, folder, server, progress)
        crashed = None if server.is_alive() else server.exit_code()
        exit_code = server.terminate() if crashed is None else crashed
    checks = _checks(settings, watch, counts, failures)
    checks += [clean_exit(exit_code, was_alive=crashed is None), no_traceback(server)]
    results = {
        "counts": dict(counts),
        "failures": failures,
        "length_s": round(length_s, 3),
        "log_lines": dict(server.line_counts),
        "last_lines": [*server.last_lines],
        "tracebacks": server.tracebacks,
    }
    finish(run, folder, checks, results, {"usage": (USAGE_COLUMNS, watch.rows)})


def _arguments(folder: Path) -> list[str]:
    """A pixel limit that every seed image is below, and of which memory shows each transgression.

    With the default one, images that are allowed may take more than the 50 MiB.
    """
    limits = ["--max-image-pixels", str(_MOST_PIXELS)]
    return ["--handler", "pipeline", *write_colour_model(folder).arguments(), *limits]


def _send(
    settings: FuzzSettings, folder: Path, server: ServerUnderTest, progress: Progress
) -> tuple[Counter[str], list[str], float]:
    """Let the client processes send.

    Returns:
        Outcomes, what broke a promise, and how long it took in seconds.
    """
    spawn = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    processes = []
    for number in range(settings.client_processes):
        share = settings.requests
        if share is not None:
            share = share // settings.client_processes + (
                number < share % settings.client_processes
            )
        task = FuzzTask(
            port=settings.port,
            seed=f"{settings.seed}-{number}",
            requests=share,
            duration_s=settings.duration_s,
            connections=settings.connections,
            deadline_s=settings.deadline_s,
            failures=folder / "failures",
        )
        ours, theirs = spawn.Pipe(duplex=False)
        process = spawn.Process(target=run_client, args=(task, theirs), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    started_s = time.monotonic()
    try:
        counts, failures = _collect(pipes, settings, server, progress, started_s)
    finally:
        for process in processes:
            process.join(0 if process.exitcode is None and not server.is_alive() else _GRACE_S)
            process.kill()
    return counts, failures, time.monotonic() - started_s


def _collect(
    pipes: Sequence[Connection],
    settings: FuzzSettings,
    server: ServerUnderTest,
    progress: Progress,
    started_s: float,
) -> tuple[Counter[str], list[str]]:
    counts: dict[Connection, dict[str, int]] = {pipe: {} for pipe in pipes}
    failures: dict[Connection, list[str]] = {pipe: [] for pipe in pipes}
    open_pipes = set(pipes)
    while open_pipes:
        ready = wait(list(open_pipes), timeout=settings.deadline_s + _GRACE_S)
        if not ready:
            failures[pipes[0]].append("a client process stopped reporting")
            break
        for pipe in ready:
            assert isinstance(pipe, Connection)
            try:
                counts[pipe], failures[pipe], is_last = pipe.recv()
            except EOFError:
                failures[pipe].append("a client process died")
                is_last = True
            if is_last:
                open_pipes.discard(pipe)
        total = sum(count.get("requests", 0) for count in counts.values())
        elapsed_s = time.monotonic() - started_s
        progress.update(
            f"fuzz {minutes(elapsed_s)}: {total} requests, {total / elapsed_s:.0f} a second, "
            f"{sum(map(len, failures.values()))} failures"
            + ("" if server.is_alive() else ", the server has ended")
        )
    progress.end_line()
    whole: Counter[str] = Counter()
    for count in counts.values():
        whole.update(count)
    return whole, [failure for found in failures.values() for failure in found]


def _checks(
    settings: FuzzSettings, watch: Watch, counts: Counter[str], failures: Sequence[str]
) -> list[Check]:
    growth = memory_growth(watch.samples)
    asked = "as many as fit" if settings.requests is None else str(settings.requests)
    wrong = len(failures) - counts["hang"]
    return [
        Check(
            "all mutated requests were sent",
            asked,
            str(counts["requests"]),
            counts["requests"] >= (settings.requests or 1),
        ),
        Check("no hang", f"{settings.deadline_s:g} s", str(counts["hang"]), not counts["hang"]),
        Check(
            "right labels in between, and declared answers to bad images",
            "0 failures",
            f"{wrong} failures, {counts['good requests']} good requests",
            wrong <= 0 and counts["good requests"] > 0,
        ),
        pings_answered(watch, settings.deadline_s),
        Check(
            "memory grows by less than 50 MiB after the warm-up",
            "50.0 MiB",
            size_text(growth),
            growth < _MOST_GROWTH_BYTES,
        ),
    ]


def memory_growth(samples: Sequence[Sample]) -> float:
    """The most resident bytes after the warm-up, over what they were at its end."""
    held = [float(sample.values["rss_bytes"]) for sample in samples]
    warm = held[int(len(held) * _WARM_UP_SHARE) :]
    return max(warm) - warm[0] if warm else float("inf")


def replay(file: Path, settings: FuzzSettings, progress: Progress) -> None:
    """Send the bytes of one file to a fresh server, and print what it does.

    Raises:
        LoadTestError: the file cannot be read, or the server ends or hangs.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise LoadTestError(f"--replay {str(file)!r} cannot be read: {error.strerror}") from error
    with (
        tempfile.TemporaryDirectory(prefix="loadtest-") as temporary,
        ServerUnderTest(_arguments(Path(temporary)), settings.port) as server,
    ):
        server.wait_ready()
        answer = b""
        with wire.connect(settings.port, settings.deadline_s) as sock:
            sock.sendall(data)
            sock.settimeout(1.0)
            try:
                while chunk := sock.recv(64 * 1024):
                    answer += chunk
                outcome = "closed by the server"
            except TimeoutError:
                outcome = "left open"
            except OSError as error:
                outcome = f"broken ({error.strerror})"
        progress.end_line()
        print(f"sent {len(data)} bytes; {outcome}; answer: {answer[:400]!r}")
        try:
            wire.exchange(settings.port, wire.call(b"ping", 1), settings.deadline_s)
        except (OSError, EOFError, wire.WireError) as error:
            raise LoadTestError(f"the server answers no ping any more: {error}") from error
        server.terminate()
        print("\n".join(server.last_lines))
