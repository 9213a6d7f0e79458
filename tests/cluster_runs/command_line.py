"""The command line: `python -m tests.cluster_runs chaos` and scaling."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from interfaces import kinds
from interfaces.command_line import build_parser
from interfaces.extras import install_command
from interfaces.options import Command, Option, settings_from
from loadtest.command_line import OPTIONS, run_command
from loadtest.commands import require_writable
from loadtest.errors import UsageError
from loadtest.progress import Progress
from tests.cluster_runs import chaos, results, scaling
from tests.cluster_runs.ray_nodes import MEMORY, ROCKSDB
from tests.deploy import haproxy

_OPTIONS = (
    *(o for o in OPTIONS if o.name in {"port", "seed", "folder"}),
    Option("output_dir", kinds.TEXT, None, "where unset results/local-cluster-COMMAND", "DIR"),
    Option("duration_s", kinds.DURATION, None, "of the load before a fault, and once it is over"),
    Option(
        "phases",
        kinds.some_of(tuple(chaos.PHASES)),
        ",".join(chaos.PHASES),
        "which, with commas between",
    ),
    Option("nodes", kinds.COUNT, 3, "of Ray, beside its head"),
    Option("replicas", kinds.COUNT, 4, "that there are to be"),
    Option("clients", kinds.COUNT, 16, "closed-loop clients that check every answer"),
    Option("item_ms", kinds.DURATION, 40.0, "how long a replica's engine takes for an image"),
    Option(
        "gcs",
        kinds.one_of((MEMORY, ROCKSDB)),
        ROCKSDB,
        "where Ray's head keeps what it knows: what is in memory is lost with it",
    ),
    Option("counts", kinds.COUNTS, "1,2,4,8", "of replicas, with commas between"),
    Option("rounds", kinds.COUNT, 3, "windows of each count"),
    Option("clients_per_replica", kinds.COUNT, 4, "closed-loop clients for each replica"),
)
_ALL = "port seed output_dir duration_s nodes item_ms"
_COMMANDS = {
    "chaos": Command(
        "replicas, nodes, front ends and Ray's head die, hang, come and go under load",
        f"{_ALL} phases replicas clients gcs",
        {"duration_s": 8.0},
    ),
    "scaling": Command(
        "throughput by the number of replicas that take a fixed time for an image",
        f"{_ALL} counts rounds clients_per_replica",
        {"duration_s": 15.0, "nodes": 2, "item_ms": 100.0},
    ),
    "report": Command("rebuild report and plot from the raw files", "folder"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is that of `python -m loadtest`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    description = "A server on a Ray cluster of several nodes, all on this machine."
    parser = build_parser(
        "tests.cluster_runs", description, _OPTIONS, _COMMANDS, writes_underscores=True
    )
    return run_command("tests.cluster_runs", words, parser.parse(words), _run)


def _run(options: argparse.Namespace, command: str, progress: Progress) -> None:
    if options.command == "report":
        print(results.report(Path(options.folder)))
        return
    if importlib.util.find_spec("ray") is None:
        raise UsageError(f"{options.command} needs the package ray: {install_command('cluster')}")
    folder = Path(options.output_dir or Path("results") / f"local-cluster-{options.command}")
    require_writable(folder)
    if options.command == "chaos":
        if not haproxy.is_installed():
            raise UsageError("chaos needs HAProxy: apt-get install haproxy")
        chaos.chaos(settings_from(chaos.ChaosSettings, options), folder, command, progress)
    else:
        scaling.scaling(settings_from(scaling.ScalingSettings, options), folder, command, progress)
