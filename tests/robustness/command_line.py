"""The command line: `python -m tests.robustness fuzz`, chaos and soak."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from interfaces import kinds
from interfaces.command_line import build_parser
from interfaces.options import Command, Option, settings_from
from loadtest.command_line import OPTIONS, run_command
from loadtest.commands import require_writable
from loadtest.progress import Progress
from tests.robustness import chaos, fuzz, observing, regression, results, soak

PHASES = (
    "killed-clients",
    "half-open",
    "bad-network",
    "slow-readers",
    "killed-worker",
    "flaky-engine",
    "overload",
    "fairness",
)
_OPTIONS = (
    *(o for o in OPTIONS if o.name in {"port", "seed", "client_processes", "folder", "requests"}),
    Option("output_dir", kinds.TEXT, None, "where unset results/local-COMMAND", "DIR"),
    Option("duration_s", kinds.DURATION, None, "length of the run, without server starts"),
    Option("connections", kinds.COUNT, 12, "sockets of each process at a time"),
    Option("deadline_s", kinds.DURATION, 10.0, "longest wait for an answer, a close or a ping"),
    Option("replay", kinds.TEXT, None, "send the bytes of this file, and no more", "FILE"),
    Option("phases", kinds.some_of(PHASES), ",".join(PHASES), "which, with commas between"),
    Option("against", kinds.TEXT, "HEAD", "commit to compare this checkout with", "REF"),
    Option("pairs", kinds.COUNT, 12, "windows of each side"),
    Option("rows", kinds.some_of(regression.ROWS), ",".join(regression.ROWS), "what to measure"),
    Option("clients", kinds.COUNT, 10, "closed-loop clients that check every answer"),
    Option(
        "model",
        kinds.TEXT,
        "resnet50",
        "of overload and fairness: what the service takes, or 'colours', a tiny one",
    ),
)
_ALL = "port seed output_dir duration_s"
_COMMANDS = {
    "fuzz": Command(
        "mutated requests and images; --duration_s ends it instead of --requests",
        f"{_ALL} requests client_processes connections deadline_s replay",
        {"requests": 1_000_000, "client_processes": 2},
    ),
    "chaos": Command(
        "dying clients, workers and engines, bad networks, overload",
        f"{_ALL} phases clients model",
        {"duration_s": 180.0},
    ),
    "soak": Command(
        "a long mixed load: throughput, memory and descriptors must stay",
        f"{_ALL} clients",
        {"duration_s": 1200.0, "clients": 6},
    ),
    "regression": Command(
        "throughput of this checkout and of another commit, in alternating windows",
        f"{_ALL} clients against rows pairs",
        {"duration_s": 6.0},
    ),
    "observing": Command(
        "CPU time that counting takes of a request, by itself and beside another commit",
        "port output_dir against pairs requests",
        {"requests": 2000, "pairs": 10},
    ),
    "report": Command("rebuild report and plot from the raw files", "folder"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is that of `python -m loadtest`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    description = "Servers under mutated requests, faults and load, and against other commits."
    parser = build_parser(
        "tests.robustness", description, _OPTIONS, _COMMANDS, writes_underscores=True
    )
    return run_command("tests.robustness", words, parser.parse(words), _run)


def _run(options: argparse.Namespace, command: str, progress: Progress) -> None:
    if options.command == "report":
        print(results.report(Path(options.folder)))
        return
    folder = Path(options.output_dir or Path("results") / f"local-{options.command}")
    require_writable(folder)
    if options.command == "chaos":
        chaos.chaos(settings_from(chaos.ChaosSettings, options), folder, command, progress)
    elif options.command == "soak":
        soak.soak(settings_from(soak.SoakSettings, options), folder, command, progress)
    elif options.command == "regression":
        regression.regression(
            settings_from(regression.RegressionSettings, options), folder, command, progress
        )
    elif options.command == "observing":
        observing.observing(
            settings_from(observing.ObservingSettings, options), folder, command, progress
        )
    else:
        options.requests = None if options.duration_s else options.requests
        settings = settings_from(fuzz.FuzzSettings, options)
        if options.replay is not None:
            fuzz.replay(Path(options.replay), settings, progress)
        else:
            fuzz.fuzz(settings, folder, command, progress)
