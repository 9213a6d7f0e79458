"""From command-line options to the load of a measurement, and over which workers it is spread."""

from __future__ import annotations

import argparse
from dataclasses import replace

from interfaces.options import settings_from
from loadtest.errors import UsageError
from loadtest.load.arrivals import POISSON
from loadtest.load.clients import fitting_client_processes, fitting_generators
from loadtest.load.workers import Spread
from loadtest.records import machine
from loadtest.settings import MASTER_PORT, LoadSettings


def load_settings(options: argparse.Namespace, host: str) -> LoadSettings:
    """The load on a server at `host`."""
    processes = options.client_processes or fitting_client_processes(
        options.request_client, machine.usable_cores(), with_gpu=machine.has_gpu()
    )
    load = settings_from(LoadSettings, options, host=host, client_processes=processes)
    return load if load.total_number is None else replace(load, duration_s=None)


def worker_address(options: argparse.Namespace) -> tuple[str, int]:
    """Where the master of --worker is.

    Raises:
        UsageError: it is no address.
    """
    return _address("worker", options.worker)


def spread_of(options: argparse.Namespace) -> Spread | None:
    """Over which workers the load of `run` is spread; None for client processes alone.

    Raises:
        UsageError: options that do not fit each other.
    """
    if options.master is None:
        if options.workers_expected is not None:
            raise UsageError(
                "--workers_expected says how many workers --master waits for; give --master, too, "
                f"such as --master 0.0.0.0:{MASTER_PORT}"
            )
        if options.processes is None:
            return None
        spread = Spread("127.0.0.1", 0, options.processes, starts_them=True)
        return replace(spread, workers=2 * spread.workers) if options.doubling_pairs else spread
    if options.processes is not None:
        raise UsageError(
            "--processes starts workers, and --master waits for some; start those of this machine "
            "with --worker, too"
        )
    if options.workers_expected is None:
        raise UsageError("--master waits for workers: say how many, such as --workers_expected 2")
    if options.doubling_pairs and options.workers_expected % 2:
        raise UsageError(
            "--doubling_pairs compares half of the workers with all of them: --workers_expected "
            f"must be even, got {options.workers_expected}"
        )
    host, port = _address("master", options.master)
    return Spread(host, port, options.workers_expected, starts_them=False)


def _address(name: str, text: str) -> tuple[str, int]:
    host, port = text.rsplit(":", 1) if ":" in text else (text, str(MASTER_PORT))
    if not host or "/" in host or not (port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise UsageError(f"--{name} takes HOST or HOST:PORT, such as 10.0.0.1:5557, got {text!r}")
    return host, int(port)


def run_settings(options: argparse.Namespace) -> LoadSettings:
    """The load of `run`: clients that wait for their answers, or an open loop.

    Of --doubling_pairs it is that of the fewer processes.

    Raises:
        UsageError: an option of the one is given for the other.
    """
    most = doubled = 2 if options.doubling_pairs else 1
    if (spread := spread_of(options)) is not None:
        if options.client_processes is not None:
            raise UsageError(
                "--client_processes are those of one machine without Locust's master; each worker "
                "is one process: leave it out"
            )
        options.client_processes = spread.workers // doubled
    if options.rate is None:
        most *= options.client_processes or 1
        if (spread or options.doubling_pairs) and most > options.request_client:
            raise UsageError(
                f"{most} processes cannot share --request_client {options.request_client}: each "
                "needs one client at least"
            )
        if options.arrivals is not None:
            raise UsageError(
                "--arrivals says when the requests of --rate come; give --rate, too, such as "
                "--rate 200"
            )
        options.arrivals = POISSON
        return load_settings(options, options.host)
    if options.total_number is not None:
        raise UsageError(
            "--total_number ends a window of clients that wait; with --rate take --duration_s, "
            f"such as --duration_s {options.total_number / options.rate:g}"
        )
    processes = options.client_processes or fitting_generators(options.rate, machine.usable_cores())
    return replace(
        load_settings(options, options.host),
        arrivals_per_s=options.rate,
        arrivals=options.arrivals or POISSON,
        request_client=processes,
        client_processes=processes,
    )


def null_request_settings(options: argparse.Namespace) -> LoadSettings:
    """The load of `null_request`."""
    processes = options.client_processes or 1
    counted = {"duration_s": None, "total_number": options.requests}
    return settings_from(LoadSettings, options, client_processes=processes, **counted)
