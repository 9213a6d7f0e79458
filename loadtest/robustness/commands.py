"""From the command line's options to a run of fuzz, chaos or soak."""

from __future__ import annotations

import argparse
from pathlib import Path

from loadtest.progress import Progress
from loadtest.robustness import chaos, fuzz, soak


def run_fuzz(options: argparse.Namespace, folder: Path, command: str, progress: Progress) -> None:
    """`fuzz`, or with --replay the one request."""
    settings = fuzz.FuzzSettings(
        requests=None if options.duration_s else options.requests,
        duration_s=options.duration_s,
        port=options.port,
        client_processes=options.client_processes,
        connections=options.connections,
        deadline_s=options.deadline_s,
        seed=options.seed,
    )
    if options.replay is not None:
        fuzz.replay(Path(options.replay), settings, progress)
    else:
        fuzz.fuzz(settings, folder, command, progress)


def run_chaos(options: argparse.Namespace, folder: Path, command: str, progress: Progress) -> None:
    """`chaos`."""
    settings = chaos.ChaosSettings(
        duration_s=options.duration_s,
        phases=options.phases,
        clients=options.clients,
        model=options.model,
        port=options.port,
        seed=options.seed,
    )
    chaos.chaos(settings, folder, command, progress)


def run_soak(options: argparse.Namespace, folder: Path, command: str, progress: Progress) -> None:
    """`soak`."""
    settings = soak.SoakSettings(
        duration_s=options.duration_s,
        clients=options.clients,
        port=options.port,
        seed=options.seed,
    )
    soak.soak(settings, folder, command, progress)


COMMANDS = {"fuzz": run_fuzz, "chaos": run_chaos, "soak": run_soak}
