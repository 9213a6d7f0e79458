"""The command line of the load test."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from loadtest import images, machine, null_request, raw_files, report
from loadtest.arguments import build_parser
from loadtest.clients import LoadSettings
from loadtest.compare import CompareSettings, Comparison
from loadtest.errors import LoadTestError, Terminated
from loadtest.measured_run import MeasuredRun
from loadtest.progress import Progress
from loadtest.run import run_load
from loadtest.variants import (
    ServerOptions,
    parse_launch_prefix,
    parse_variants,
    parse_workloads,
)

_SCORE_TOLERANCE = {"fp32": 0.001, "bf16": 0.02}
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


def _chosen_images(options: argparse.Namespace) -> list[images.LoadImage]:
    if options.img_dir is None:
        return images.default_images()
    return images.read_folder(Path(options.img_dir))


def _run(options: argparse.Namespace, command: str, progress: Progress) -> None:
    settings = _load_settings(options, options.host)
    if options.output_dir is not None:
        _require_writable(Path(options.output_dir))
    run = run_load(settings, _chosen_images(options), command, progress)
    progress.end_line()
    print(report.quick_rows(run))
    if options.output_dir is not None:
        _save(run, Path(options.output_dir), progress)


def _compare(options: argparse.Namespace, command: str, progress: Progress) -> None:
    folder = Path(options.output_dir or Path("results") / options.name)
    servers = ServerOptions(
        engine=options.engine,
        precision=options.precision,
        model_args=_model_args(options),
        config=options.config,
        port=options.port,
        launch_prefix=parse_launch_prefix(options.launch_prefix),
        ready_timeout_s=options.ready_timeout_s,
    )
    if options.config is not None and not Path(options.config).is_file():
        raise LoadTestError(f"configuration file {options.config!r} does not exist")
    tolerance = options.score_tolerance
    settings = CompareSettings(
        workloads=parse_workloads(options.workloads),
        variants=parse_variants(options.variants),
        servers=servers,
        load=_load_settings(options, "127.0.0.1"),
        repeats=options.repeats,
        score_tolerance=_SCORE_TOLERANCE[options.precision] if tolerance is None else tolerance,
        images=_chosen_images(options),
    )
    _require_writable(folder)
    _save(Comparison(settings, command, progress).run(), folder, progress)
    print(report.terminal_tables(raw_files.read(folder)))
    print(f"results: {folder}")


def _model_args(options: argparse.Namespace) -> tuple[str, ...]:
    """What the model needs, in one word a flag so that a negative mean is no flag of its own."""
    given = {name: getattr(options, name) for name in ("weights", "mean", "std")}
    return tuple(f"--{name}={value}" for name, value in given.items() if value is not None)


def _null_request(options: argparse.Namespace, command: str, progress: Progress) -> None:
    settings = LoadSettings(
        port=options.port,
        request_client=options.request_client,
        client_processes=options.client_processes,
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


def _load_settings(options: argparse.Namespace, host: str) -> LoadSettings:
    return LoadSettings(
        host=host,
        port=options.port,
        request_client=options.request_client,
        request_batch=options.request_batch,
        client_processes=options.client_processes,
        seed=options.seed,
        warmup_s=options.warmup_s,
        duration_s=None if options.total_number is not None else options.duration_s,
        total_number=options.total_number,
        request_timeout_s=options.request_timeout_s,
    )


_COMMANDS: dict[str, Callable[[argparse.Namespace, str, Progress], None]] = {
    "images": _make_images,
    "run": _run,
    "compare": _compare,
    "report": _report,
    "null_request": _null_request,
}
