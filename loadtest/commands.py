"""The commands of the load test.

A command imports what only it needs when it runs: matplotlib and scipy take a second, which would
be lost on a command whose options are refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TypeVar

from interfaces.extras import packages_of
from loadtest.errors import LoadTestError, NoResultError, UsageError
from loadtest.load import images
from loadtest.load.joining import work
from loadtest.measure import settings as chosen
from loadtest.measure.comparison import Comparison
from loadtest.measure.load_settings import (
    null_request_settings,
    run_settings,
    spread_of,
    worker_address,
)
from loadtest.measure.peers import PeersComparison
from loadtest.measure.single import measure_null_request, measure_running_server
from loadtest.progress import Progress
from loadtest.records import machine, raw_files
from loadtest.records.run import CLIENTS, Run
from loadtest.runtime.integrity import measure_integrity
from loadtest.runtime.parts import Part, batching_parts, overhead_parts
from loadtest.runtime.sides import measure_sides
from loadtest.servers.environments import install
from loadtest.servers.programs import parse_launch_prefix
from loadtest.servers.variants import (
    BASELINE,
    PIPELINE,
    is_pipeline,
    may_use_gpu,
)

_DIFF = "diff"
_REPORT_PACKAGES = ("matplotlib", "scipy", "jinja2")

_Settings = TypeVar("_Settings")


def _make_images(options: argparse.Namespace, command: str, progress: Progress) -> None:
    del command, progress  # nothing is measured
    images.print_table(images.write_photo_set(Path(options.output_dir)))


def _run(options: argparse.Namespace, command: str, progress: Progress) -> None:
    if options.worker is not None:
        host, port = worker_address(options)
        work(host, port, options.processes or 1, chosen.chosen_images(options), progress)
        return
    load = run_settings(options)
    folder = _prepared(options.output_dir)
    sent = chosen.chosen_images(options)
    spread, pairs = spread_of(options), options.doubling_pairs or 0
    run = measure_running_server(load, sent, command, progress, spread, pairs)
    progress.end_line()
    from loadtest.report.load_page import quick_tables

    print(quick_tables(run))
    _save(run, folder, progress)
    require_result(run)


def _capacity(options: argparse.Namespace, command: str, progress: Progress) -> None:
    settings = chosen.capacity_settings(options)
    folder = _prepared(options.output_dir)
    from loadtest.measure.capacity import CapacitySearch

    writer = None if folder is None else raw_files.RawWriter(folder)
    try:
        run = CapacitySearch(settings, command, writer, progress).run()
    except BaseException:
        if writer is not None and writer.has_saved:
            build_report(writer.folder)
        raise
    progress.end_line()
    from loadtest.report.capacity_page import terminal

    print(terminal(run))
    _save(run, folder, progress)


def _null_request(options: argparse.Namespace, command: str, progress: Progress) -> None:
    folder = _prepared(options.output_dir)
    run = measure_null_request(
        null_request_settings(options),
        options.payload_bytes,
        parse_launch_prefix(options.launch_prefix),
        options.ready_timeout_s,
        command,
        progress,
    )
    progress.end_line()
    from loadtest.report.load_page import cpu_us_per_request

    print(
        f"{cpu_us_per_request(run):.1f} us of server CPU time per request "
        f"({options.requests} requests of {options.payload_bytes} bytes)"
    )
    _save(run, folder, progress)


def _compare(options: argparse.Namespace, command: str, progress: Progress) -> None:
    settings = chosen.compare_settings(options)
    least = options.fail_below
    if least is not None:
        require_judged([variant.name for variant in settings.compared])
    folder = _measure_into_folder(Comparison, settings, options, command, progress)
    if least is not None:
        from loadtest.report.required_gain import require_gain

        print(require_gain(raw_files.read(folder), least))


def _sweep(options: argparse.Namespace, command: str, progress: Progress) -> None:
    settings = chosen.sweep_settings(options)
    _measure_into_folder(Comparison, settings, options, command, progress)


class _Measurement(Protocol):
    def run(self) -> object: ...


def _measure_into_folder(
    measurement: Callable[[_Settings, str, raw_files.RawWriter, Progress], _Measurement],
    settings: _Settings,
    options: argparse.Namespace,
    command: str,
    progress: Progress,
) -> Path:
    """Measure, and report what was measured even where the measurement ends before its time.

    Returns:
        The measured folder.
    """
    folder = _prepared(options.output_dir or f"results/{options.name}")
    assert folder is not None  # noqa: S101 (one of the two was given)
    writer = raw_files.RawWriter(folder)
    try:
        measurement(settings, command, writer, progress).run()
    except BaseException:
        if writer.has_saved:
            build_report(folder)
        raise
    finally:
        progress.end_line()
    print(build_report(folder))
    print(report_link(folder))
    return folder


def _tune(options: argparse.Namespace, command: str, progress: Progress) -> None:
    settings = chosen.tune_settings(options)
    # Not at the top: Optuna takes its time, and is needed here alone.
    with packages_of("server", "bench", "tune"):
        from loadtest.measure.tuning import Tuning

    _measure_into_folder(Tuning, settings, options, command, progress)


def _peers(options: argparse.Namespace, command: str, progress: Progress) -> None:
    settings = chosen.peers_settings(options)
    _measure_into_folder(PeersComparison, settings, options, command, progress)


def _install_peers(options: argparse.Namespace, command: str, progress: Progress) -> None:
    del command  # nothing is measured
    on_gpu = may_use_gpu(options.engine, has_gpu=machine.has_gpu())
    for peer in chosen.chosen_peers(options, on_gpu=on_gpu):
        progress.line(f"{peer.name}: {', '.join(peer.requirements) or 'nothing to install'}")
        try:
            install(peer, Path(options.peers_dir))
        except LoadTestError as error:
            # It costs only itself; the measurement's report names it.
            progress.line(f"{peer.name}: {error}")


def _gpu_session(options: argparse.Namespace, command: str, progress: Progress) -> None:
    from loadtest.measure import gpu_session

    _prepared(options.out)
    gpu_session.measure_everything(options, command, progress, build_report)


def _batching(options: argparse.Namespace, command: str, progress: Progress) -> None:
    names = ("repeats", "duration_s", "trials", "wait_s")
    parts = batching_parts(options.duration_s, options.trials, options.wait_s)
    settings = {name: getattr(options, name) for name in names}
    _measure_sides(parts, settings, options, command, progress)


def _overhead(options: argparse.Namespace, command: str, progress: Progress) -> None:
    settings = {"repeats": options.repeats, "duration_s": options.duration_s}
    parts = overhead_parts(options.duration_s)
    _measure_sides(parts, settings, options, command, progress)


def _measure_sides(
    parts: Sequence[Part],
    settings: dict[str, Any],
    options: argparse.Namespace,
    command: str,
    progress: Progress,
) -> None:
    """Measure the parts on both sides; the kind of run has the command's name."""
    folder = _prepared(options.output_dir)
    python = options.reference_python or sys.executable
    run = measure_sides(options.command, parts, settings, python, command, progress.line)
    _save(run, folder, progress, shows=True)


def _integrity(options: argparse.Namespace, command: str, progress: Progress) -> None:
    folder = _prepared(options.output_dir)
    run = measure_integrity(
        options.items, options.threads, options.instances, options.sample_s, command, progress
    )
    progress.end_line()
    _save(run, folder, progress, shows=True)
    if run.results["findings"]:
        raise LoadTestError("items were lost, duplicated or swapped; the report says which")


def _report(options: argparse.Namespace, command: str, progress: Progress) -> None:
    del command, progress  # nothing is measured
    words: list[str] = options.folders
    if words[0] == _DIFF and len(words) > 1:
        if len(words) != 3:
            raise UsageError(f"report {_DIFF} takes two measured folders, got {len(words) - 1}")
        from loadtest.report.difference import difference

        before, after = map(Path, words[1:])
        print(difference(before, after))
        return
    if len(words) > 1:
        *_, one, other = words
        raise UsageError(
            f"report takes one measured folder, got {len(words)}; two are compared by "
            f"`report {_DIFF} {one} {other}`"
        )
    print(build_report(Path(words[0])))
    print(report_link(Path(words[0])))


def _thin(options: argparse.Namespace, command: str, progress: Progress) -> None:
    del command, progress  # nothing is measured
    path = Path(options.folder) / raw_files.LATENCY_FILE
    before_bytes = path.stat().st_size if path.exists() else 0
    raw_files.thin(path.parent)
    print(f"{path}: {before_bytes:,} bytes before, {path.stat().st_size:,} now")


def build_report(folder: Path) -> str:
    """Make report.md and the plots of a measured folder.

    Returns:
        The tables, for a terminal.
    """
    from loadtest.report.document import build
    from loadtest.report.pages import PAGES

    run = build(folder, PAGES)
    return PAGES[run.kind].terminal(run)


def report_link(folder: Path) -> str:
    """Where the report is, as a terminal makes a link of it."""
    from loadtest.report.document import HTML_FILE, REPORT_FILE

    page = folder / HTML_FILE
    if page.exists():
        return f"report: {page.absolute().as_uri()}"
    return f"written: {folder / REPORT_FILE}"


def require_result(run: Run) -> None:
    """Raise NoResultError where a worker was lost, or no request of a window was answered right."""
    for window in (window for workload in run.workloads for window in workload.windows):
        for process in window.details.get(CLIENTS, ()):
            if process["lost"]:
                raise NoResultError(
                    f"worker {process['worker']} {process['lost']}: the load was not the one asked "
                    f"for, and the window ended after {window.length_s:.1f} s"
                )
        images = int(run.settings["request_batch"])
        if window.records and all(record.failed_images >= images for record in window.records):
            first = next(record.error for record in window.records)
            raise NoResultError(
                f"none of {len(window.records)} requests got a right answer, the first: {first}"
            )


def require_judged(names: Sequence[str]) -> None:
    """Raise UsageError where the rows have no ratio that --fail_below could judge."""
    if BASELINE not in names or not any(map(is_pipeline, names)):
        raise UsageError(
            f"--fail_below judges the ratio of a pipeline to {BASELINE!r}, and --variants has "
            f"{', '.join(names)}; add {BASELINE!r} and {PIPELINE!r}"
        )


def _save(run: Run, folder: Path | None, progress: Progress, *, shows: bool = False) -> None:
    if folder is None:
        return
    raw_files.write(folder, run)
    text = build_report(folder)
    if shows:
        print(text)
    progress.line(f"written: {folder}")


def _prepared(folder: str | None) -> Path | None:
    """Find out before the measurement, not after it, whether it can be reported there."""
    for name in _REPORT_PACKAGES:
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"no module named {name!r}", name=name)
    if folder is None:
        return None
    path = Path(folder)
    require_writable(path)
    return path


def require_writable(folder: Path) -> None:
    """Raise LoadTestError where the folder cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"output folder {str(folder)!r} cannot be written: {error.strerror}"
        ) from error


COMMANDS: dict[str, Callable[[argparse.Namespace, str, Progress], None]] = {
    "images": _make_images,
    "run": _run,
    "capacity": _capacity,
    "compare": _compare,
    "sweep": _sweep,
    "tune": _tune,
    "peers": _peers,
    "install_peers": _install_peers,
    "gpu_session": _gpu_session,
    "null_request": _null_request,
    "batching": _batching,
    "overhead": _overhead,
    "integrity": _integrity,
    "report": _report,
    "thin": _thin,
}
