"""What is told of a row in words."""

from __future__ import annotations

import re
from collections import Counter

from loadtest.report.measured import MeasuredVariant
from loadtest.servers.variants import server_processes

_SHOWN_ERRORS = 3
# Not one within a label, which is quoted.
_NUMBER = re.compile(r"(?<![\w'.])\d+(?:\.\d+)?(?![\w'])")


def clients_text(row: MeasuredVariant) -> str:
    """Its number of clients."""
    return "1 client" if row.clients == 1 else f"{row.clients} clients"


def processes_text(row: MeasuredVariant) -> str:
    """How many processes served."""
    return server_processes(row.processes)


def ran_in(row: MeasuredVariant) -> str:
    """Of the upper bound: the processes that were fastest in most repeats; else ""."""
    setups = [
        (int(window.details["processes"]), int(window.details["threads"]))
        for window in row.windows
        if "processes" in window.details
    ]
    if not setups:
        return ""
    (processes, threads), _ = Counter(setups).most_common(1)[0]
    plural = ("es" if processes > 1 else "", "s" if threads > 1 else "")
    return f", in {processes} process{plural[0]} of {threads} thread{plural[1]}"


def first_errors(row: MeasuredVariant) -> list[tuple[str, int]]:
    """The first few different failures, with their counts.

    Those that differ by a number alone are one: "such as" and the first of them.
    """
    kinds: dict[str, Counter[str]] = {}
    for error, count in Counter(r.error for r in row.records if r.error).items():
        kinds.setdefault(_NUMBER.sub("0", error), Counter())[error] = count
    return [
        (f"such as {next(iter(kind))}" if len(kind) > 1 else next(iter(kind)), kind.total())
        for kind in kinds.values()
    ][:_SHOWN_ERRORS]
