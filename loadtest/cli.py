"""The command line of the load test."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from loadtest import gpu_session, images, machine, measuring, null_request, raw_files, report
from loadtest.arguments import build_parser
from loadtest.clients import LoadSettings
from loadtest.compare import Comparison
from loadtest.errors import LoadTestError, Terminated
from loadtest.measured_run import MeasuredRun
from loadtest.progress import Progress
from loadtest.robustness import commands as robustness
from loadtest.run import run_load
from loadtest.sweep import Sweep
from loadtest.variants import parse_launch_prefix

_INTERRUPTED = 130
_TERMINATED = 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0, 1 for an error, 2 for wrong usage, 130 for Ctrl-C, 143 for SIGTERM.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = build_parser().parse_args(words)
    command = machine.without_paths(f"python -m loadtest {shlex.join(words)}")
    progress = Progress()
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        _COMMANDS[options.command](options, str(command), progress)
    except LoadTestError as error:
        return _fail(progress, f"loadtest: error: {error}", 1)
    except KeyboardInterrupt:
        return _fail(progress, "loadtest: interrupted", _INTERRUPTED)
    except Terminated:
        return _fail(progress, "loadtest: terminated", _TERMINATED)
    return 0


def _fail(progress: Progress, line: str, code: int) -> int:
    progress.end_line()
    print(" ".join(line.split()), file=sys.stderr)
    return code


def _on_sigterm(signum: int, frame: FrameType | None) -> None:
    del signum, frame
    raise Terminated


def _make_images(options: argparse.Namespace, command: str, progress: Progress) -> None:
    del command, progress  # nothing is measured
    images.print_table(images.write_photo_set(Path(options.output_dir)))


def _run(options: argparse.Namespace, command: str, progress: Progress) -> None:
    settings = measuring.load_settings(options, options.host)
    if options.output_dir is not None:
        _require_writable(Path(options.output_dir))
    run = run_load(settings, measuring.chosen_images(options), command, progress)
    progress.end_line()
    print(report.quick_rows(run))
    if options.output_dir is not None:
        _save(run, Path(options.output_dir), progress)


def _compare(options: argparse.Namespace, command: str, progress: Progress) -> None:
    settings = measuring.compare_settings(options)
    _measure_into(
        Path(options.output_dir or Path("results") / options.name),
        lambda writer: Comparison(settings, command, writer, progress).run(),
    )


def _sweep(options: argparse.Namespace, command: str, progress: Progress) -> None:
    settings = measuring.sweep_settings(options)
    _measure_into(
        Path(options.output_dir or Path("results") / options.name),
        lambda writer: Sweep(settings, command, writer, progress).run(),
    )


def _measure_into(folder: Path, measure: Callable[[raw_files.RawWriter], MeasuredRun]) -> None:
    """Measure, and report what was measured even where the measurement ends before its time."""
    _require_writable(folder)
    writer = raw_files.RawWriter(folder)
    try:
        run = measure(writer)
    finally:
        if writer.has_saved:
            report.build(folder)
    print(report.terminal_tables(run))
    print(f"results: {folder}")


def _gpu_session(options: argparse.Namespace, command: str, progress: Progress) -> None:
    _require_writable(Path(options.out))
    gpu_session.measure_everything(options, command, progress)


def _null_request(options: argparse.Namespace, command: str, progress: Progress) -> None:
    settings = LoadSettings(
        port=options.port,
        request_client=options.request_client,
        client_processes=options.client_processes or 1,
        seed=options.seed,
        warmup_s=options.warmup_s,
        duration_s=None,
        total_number=options.requests,
    )
    if options.output_dir is not None:
        _require_writable(Path(options.output_dir))
    run = null_request.measure_null_request(
        settings,
        options.payload_bytes,
        parse_launch_prefix(options.launch_prefix),
        options.ready_timeout_s,
        command,
        progress,
    )
    progress.end_line()
    print(
        f"{null_request.cpu_us_per_request(run):.1f} us of server CPU time per request "
        f"({options.requests} requests of {options.payload_bytes} bytes)"
    )
    if options.output_dir is not None:
        _save(run, Path(options.output_dir), progress)


def _robustness(options: argparse.Namespace, command: str, progress: Progress) -> None:
    folder = Path(options.output_dir or Path("results") / f"local-{options.command}")
    _require_writable(folder)
    robustness.COMMANDS[options.command](options, folder, command, progress)


def _report(options: argparse.Namespace, command: str, progress: Progress) -> None:
    del command, progress  # nothing is measured
    folder = Path(options.folder)
    run = report.build(folder)
    print(report.terminal_tables(run))
    print(f"written: {folder / report.REPORT_FILE}")


def _save(run: MeasuredRun, folder: Path, progress: Progress) -> None:
    raw_files.write(folder, run)
    report.build(folder)
    progress.line(f"written: {folder}")


def _require_writable(folder: Path) -> None:
    """Find out before the measurement, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise LoadTestError(
            f"output folder {str(folder)!r} cannot be written: {error.strerror}"
        ) from error


_COMMANDS: dict[str, Callable[[argparse.Namespace, str, Progress], None]] = {
    "images": _make_images,
    "run": _run,
    "compare": _compare,
    "sweep": _sweep,
    "gpu_session": _gpu_session,
    "report": _report,
    "null_request": _null_request,
    "fuzz": _robustness,
    "chaos": _robustness,
    "soak": _robustness,
}
