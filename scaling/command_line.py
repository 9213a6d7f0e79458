"""The command line: `python -m scaling`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from interfaces.command_line import Parser
from interfaces.command_line import build_parser as build
from interfaces.kinds import COUNT, COUNT_OR_0, DURATION, MOST, TEXT, WHOLE_NUMBER, Bounds, Kind
from interfaces.options import Command, Option
from loadtest.errors import LoadTestError
from scaling.errors import ScalingError

_RATE = Kind(
    "number of images a second", float, Bounds(0, MOST, is_open=True, is_finite=True), metavar="N"
)
_SHARE = Kind("share", float, Bounds(0, 1, is_open=True), metavar="X")
_GBIT_S = Kind("number of Gbit/s", float, Bounds(0, 10_000, is_open=True), metavar="X")
_GPUS = Kind("number of GPUs", int, Bounds(1, 2, why="more were not measured"), metavar="N")

OPTIONS = (
    Option("results", TEXT, "results", "the measured folders", "DIR"),
    Option("output_dir", TEXT, "results/scaling", "folder for raw data, report and plots", "DIR"),
    Option("page", TEXT, "docs/scaling.md", "the page whose tables are written", "FILE"),
    Option("images_per_s", _RATE, 100_000.0, "what is to be served at the busiest time"),
    Option("use", _SHARE, 0.7, "how full anything may be"),
    Option("spare", COUNT_OR_0, 1, "hosts of each kind that may fail"),
    Option("link_gbit_s", _GBIT_S, 25.0, "network link of every host"),
    Option("front_end_cores", COUNT, 16, "cores of a host of front ends"),
    Option("gpus_per_host", _GPUS, 1, "GPUs of a replica host"),
    Option("repeats", COUNT, 3, "windows of every point that is measured"),
    Option("duration_s", DURATION, 10.0, "length of a window"),
    Option("seed", WHOLE_NUMBER, 0, "decides arrivals and choices"),
)
COMMANDS = {
    "plan": Command(
        "hosts, GPUs, network and clients for a load, from measured costs",
        "results images_per_s use spare link_gbit_s front_end_cores gpus_per_host",
    ),
    "measure": Command(
        "route to three servers of this machine, for the simulation to be checked against",
        "output_dir repeats duration_s seed",
    ),
    "simulate": Command("simulate routing and batching at 1,000 replicas", "results output_dir"),
    "report": Command(
        "write report and plots of what was measured and simulated", "results output_dir"
    ),
    "page": Command("write the tables of docs/scaling.md", "results page"),
}


def build_parser() -> Parser:
    """The parser of `python -m scaling`."""
    return build("scaling", "From measured costs to a cluster.", OPTIONS, COMMANDS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the command line; None for this process's own.

    Returns:
        The exit code: 0, 1 for an error, 2 for wrong usage, 130 for Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = build_parser().parse(words)
    try:
        _RUN[options.command](options, f"python -m scaling {shlex.join(words)}")
    except (ScalingError, LoadTestError) as error:
        print(f"scaling: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("scaling: interrupted", file=sys.stderr)
        return 130
    return 0


def _plan(options: argparse.Namespace, command: str) -> None:
    del command  # nothing is written
    from scaling.costs import read_costs
    from scaling.page import plan_blocks
    from scaling.plan import Demand

    names = ("images_per_s", "use", "spare", "link_gbit_s", "front_end_cores", "gpus_per_host")
    demand = Demand(**{name: getattr(options, name) for name in names})
    for text in plan_blocks(read_costs(Path(options.results)), demand).values():
        print(text)


def _measure(options: argparse.Namespace, command: str) -> None:
    from scaling.record import write_measured

    folder = _folder(options.output_dir)
    write_measured(
        folder, options.repeats, options.duration_s, options.seed, _shared(command), _tell
    )


def _simulate(options: argparse.Namespace, command: str) -> None:
    from scaling.costs import read_costs
    from scaling.study import run_study

    folder = _folder(options.output_dir)
    run_study(read_costs(Path(options.results)), folder, _shared(command), _tell)


def _report(options: argparse.Namespace, command: str) -> None:
    del command  # it follows from what is in the folder
    from scaling.page import write_report

    print(write_report(Path(options.output_dir), Path(options.results)))


def _page(options: argparse.Namespace, command: str) -> None:
    del command  # it follows from what is in the folder
    from scaling.page import filled

    page = Path(options.page)
    try:
        before = page.read_text(encoding="utf-8")
        page.write_text(filled(before, Path(options.results)), encoding="utf-8")
    except OSError as error:
        raise ScalingError(f"{page}: {error.strerror}") from error


def _folder(name: str) -> Path:
    """The folder, made before anything is measured."""
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ScalingError(f"output folder {name!r} cannot be made: {error.strerror}") from error
    return folder


def _shared(command: str) -> str:
    """The command without paths of this machine."""
    from loadtest.records.machine import without_paths

    return str(without_paths(command))


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


_RUN: dict[str, Callable[[argparse.Namespace, str], None]] = {
    "plan": _plan,
    "measure": _measure,
    "simulate": _simulate,
    "report": _report,
    "page": _page,
}
