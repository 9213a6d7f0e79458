"""The command line of `python -m pipeline.measure`."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineConfigError
from pipeline.measure import environment, integrity, report, run_file
from pipeline.measure.batching import batching_parts
from pipeline.measure.overhead import overhead_parts
from pipeline.measure.own_side import start as start_in_process
from pipeline.measure.sides import OURS, MeasureError, SideProcess, start_anchor, start_own_side
from pipeline.measure.windows import Part, measure

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0, 1 for an error, 2 for wrong usage, 130 for Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(words)
    command = environment.without_paths(f"python -m pipeline.measure {shlex.join(words)}")
    try:
        return int(options.run(options, command))
    except (MeasureError, PipelineConfigError) as error:
        _progress(f"pipeline.measure: error: {' '.join(str(error).split())}")
        return 1
    except KeyboardInterrupt:
        _progress("pipeline.measure: interrupted")
        return _INTERRUPTED


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 (a command line)


def _batching(options: argparse.Namespace, command: str) -> int:
    parts = batching_parts(options.duration_s, options.trials, options.wait_s)
    settings = {
        "repeats": options.repeats,
        "duration_s": options.duration_s,
        "trials": options.trials,
        "wait_s": options.wait_s,
    }
    return _measure_sides("batching", parts, settings, options, command)


def _overhead(options: argparse.Namespace, command: str) -> int:
    settings = {"repeats": options.repeats, "duration_s": options.duration_s}
    return _measure_sides(
        "overhead", overhead_parts(options.duration_s), settings, options, command
    )


def _measure_sides(
    kind: str,
    parts: Sequence[Part],
    settings: dict[str, Any],
    options: argparse.Namespace,
    command: str,
) -> int:
    folder = _writable(options.output_dir)
    run = _begin(kind, command, settings)
    with ExitStack() as stack:
        sides = [stack.enter_context(start_own_side())]
        anchor, missing = _start_anchor(options.anchor_python)
        if anchor is not None:
            sides.append(stack.enter_context(anchor))
        run["anchor_missing"] = missing
        run["versions"] = {side.name: side.versions for side in sides}
        run["parts"] = [asdict(part) for part in parts]
        run["windows"] = measure(parts, sides, options.repeats, _progress)
    return _save(folder, run)


def _start_anchor(python: str) -> tuple[SideProcess | None, str | None]:
    """The side of torchpipe, or why there is none."""
    _progress("starting torchpipe; where it compiles its core for the first time, for some minutes")
    try:
        return start_anchor(python), None
    except MeasureError as error:
        reason = environment.without_paths(str(error))
        _progress(f"measuring thriftpipe only: {reason}")
        return None, reason


def _integrity(options: argparse.Namespace, command: str) -> int:
    folder = _writable(options.output_dir)
    settings = {
        "clients": options.clients,
        "instances": options.instances,
        "sample_s": options.sample_s,
        "failing_per_mille_a_node": integrity.FAILING_PER_MILLE,
        "longest_call": integrity.LONGEST_CALL,
        "largest_batch": integrity.LARGEST_BATCH,
    }
    run = _begin("integrity", command, settings)
    run["versions"] = {OURS: start_in_process()[1]}
    run["document"] = integrity.document(options.instances)
    run |= integrity.run_integrity(
        options.items, options.clients, options.instances, options.sample_s, _every(5.0)
    )
    _save(folder, run)
    return 1 if run["findings"] else 0


def _report(options: argparse.Namespace, command: str) -> int:
    del command  # nothing is measured
    _show(Path(options.folder))
    return 0


def _begin(kind: str, command: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The part of run.json that is known before the measurement."""
    return {
        "kind": kind,
        "started": environment.utc_now(),
        "command": command,
        "machine": environment.describe_machine(),
        "source": environment.describe_source(),
        "settings": settings,
    }


def _save(folder: Path, run: dict[str, Any]) -> int:
    run_file.write(folder, run)
    _show(folder)
    return 0


def _show(folder: Path) -> None:
    print(report.build(folder))  # noqa: T201 (a command line)
    _progress(f"written: {folder}")


def _writable(folder: str) -> Path:
    """Find out before the measurement, not after it."""
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise MeasureError(
            f"output folder {folder!r} cannot be written: {error.strerror}"
        ) from error
    return path


def _every(interval_s: float) -> Callable[[str], None]:
    """A progress that shows a line only if the last one is that old."""
    shown_s = time.monotonic()

    def update(line: str) -> None:
        nonlocal shown_s
        if time.monotonic() - shown_s >= interval_s:
            shown_s = time.monotonic()
            _progress(line)

    return update


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {text}")
    return value


# argparse names the type in its message for text that is no number.
_count.__name__ = "whole number"
_seconds.__name__ = "number of seconds"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.measure",
        description="Measures the pipeline's runtime, beside torchpipe where that is installed.",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    batching = commands.add_parser(
        "batching", help="when batches leave, with a model that sleeps for 10 ms"
    )
    _add_sides(batching, duration_s=3.0)
    batching.add_argument("--trials", type=_count, default=10, help="late requests in a window")
    batching.add_argument(
        "--wait_s", type=_seconds, default=0.5, help="how long waiting items' CPU time is measured"
    )
    batching.set_defaults(run=_batching)

    overhead = commands.add_parser("overhead", help="an item's way through nodes that do nothing")
    _add_sides(overhead, duration_s=3.0)
    overhead.set_defaults(run=_overhead)

    checked = commands.add_parser(
        "integrity", help="no item lost, duplicated or swapped, and memory stays flat"
    )
    checked.add_argument("--items", type=_count, default=1_000_000, help="how many")
    checked.add_argument("--clients", type=_count, default=8, help="threads that call")
    checked.add_argument("--instances", type=_count, default=2, help="of each node")
    checked.add_argument(
        "--sample_s", type=_seconds, default=0.5, help="time between two samples of memory"
    )
    _add_output(checked)
    checked.set_defaults(run=_integrity)

    again = commands.add_parser("report", help="make report.md and its plot again from run.json")
    again.add_argument("folder", help="a measured folder")
    again.set_defaults(run=_report)
    return parser


def _add_sides(parser: argparse.ArgumentParser, duration_s: float) -> None:
    parser.add_argument(
        "--anchor_python",
        default=sys.executable,
        metavar="PATH",
        help="the interpreter that has torchpipe (default: this one)",
    )
    parser.add_argument("--repeats", type=_count, default=5, help="windows of each part and side")
    parser.add_argument(
        "--duration_s", type=_seconds, default=duration_s, help="of a window with clients"
    )
    _add_output(parser)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output_dir", required=True, metavar="DIR", help="such as results/NAME; made if need be"
    )
