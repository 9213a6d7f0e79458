"""The flags of fuzz, chaos and soak."""

from __future__ import annotations

import argparse
from collections.abc import Callable

PHASES = (
    "killed-clients",
    "half-open",
    "bad-network",
    "slow-readers",
    "killed-worker",
    "flaky-engine",
    "overload",
)


def add_fuzz(
    parser: argparse.ArgumentParser, count: Callable[[str], int], seconds: Callable[[str], float]
) -> None:
    """Flags of `fuzz`; `count` and `seconds` parse."""
    parser.add_argument("--requests", type=count, default=1_000_000, help="mutated requests")
    parser.add_argument(
        "--duration_s", type=seconds, help="length of the run, instead of --requests"
    )
    parser.add_argument(
        "--client_processes", type=count, default=2, help="processes that send requests"
    )
    parser.add_argument(
        "--connections", type=count, default=12, help="sockets of each process at a time"
    )
    parser.add_argument(
        "--deadline_s",
        type=seconds,
        default=10.0,
        help="longest wait for an answer, a close or a ping",
    )
    parser.add_argument("--replay", metavar="FILE", help="send the bytes of this file, and no more")


def add_chaos(
    parser: argparse.ArgumentParser, count: Callable[[str], int], seconds: Callable[[str], float]
) -> None:
    """Flags of `chaos`; `count` and `seconds` parse."""
    parser.add_argument(
        "--duration_s", type=seconds, default=180.0, help="of all phases, without server starts"
    )
    parser.add_argument(
        "--phases", type=_phases, default=",".join(PHASES), help="which, with commas between"
    )
    parser.add_argument("--clients", type=count, default=10, help="well-behaved clients")
    parser.add_argument(
        "--model",
        default="resnet50",
        help="of the overload phase: what the service takes, or 'colours', a tiny one",
    )


def _phases(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in PHASES:
            raise argparse.ArgumentTypeError(f"takes some of {', '.join(PHASES)}; got {name!r}")
    return names


_phases.__name__ = "list of phases"


def add_soak(
    parser: argparse.ArgumentParser, count: Callable[[str], int], seconds: Callable[[str], float]
) -> None:
    """Flags of `soak`; `count` and `seconds` parse."""
    parser.add_argument("--duration_s", type=seconds, default=1200.0, help="length of the run")
    parser.add_argument("--clients", type=count, default=6, help="closed-loop clients")
